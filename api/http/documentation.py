"""The page at /docs: Swagger UI, which loads only files of this server."""

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
"""All paths that a browser requests for the page. There is no icon. But if the password is refused
for any of these paths, the browser forgets it and asks the user again."""

_FILES = Path(str(files("fastapi_offline"))) / "static"

# The URLs are relative, so that the page also works behind a reverse proxy with a path prefix.
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
