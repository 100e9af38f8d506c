"""The page at /docs: Swagger UI from an installed package, allowed to load nothing else."""

from __future__ import annotations

import base64
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse

PAGE_PATH = "/docs"
DOCUMENT_PATH = "/openapi.json"
SCRIPT_PATH = "/docs/swagger-ui-bundle.js"
STYLE_PATH = "/docs/swagger-ui.css"
BROWSER_PATHS = frozenset({PAGE_PATH, DOCUMENT_PATH, SCRIPT_PATH, STYLE_PATH, "/favicon.ico"})
"""All that a browser fetches to show the page. There is no icon, but where the browser's password
is refused, even for the icon, the browser forgets it and asks the user again."""

_FILES = Path(str(files("fastapi_offline"))) / "static"

# The URLs are relative, so that the page also works below a reverse proxy's prefix.
_START = """
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
})
"""
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Claude Code Orchestrator</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>{_START}</script>
</body>
</html>
"""
_START_HASH = base64.b64encode(sha256(_START.encode()).digest()).decode()
_POLICY = (
    "default-src 'none'",
    f"script-src 'self' 'sha256-{_START_HASH}'",
    "style-src 'self'",
    "img-src data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)

router = APIRouter(include_in_schema=False)


@router.get(PAGE_PATH)
async def page() -> HTMLResponse:
    """Return the page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": "; ".join(_POLICY)})


@router.get(SCRIPT_PATH)
async def script() -> FileResponse:
    """Return Swagger UI's script."""
    return FileResponse(_FILES / "swagger-ui-bundle.js")


@router.get(STYLE_PATH)
async def style() -> FileResponse:
    """Return Swagger UI's style sheet."""
    return FileResponse(_FILES / "swagger-ui.css")
