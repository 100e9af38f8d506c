"""The environment variables that the operator sets for Claude."""

from __future__ import annotations

from collections.abc import Mapping

CLAUDE_CREDENTIAL_NAMES = frozenset(
    {
        # Anthropic
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "CLAUDE_CODE_OAUTH_TOKEN",
        # The model of each alias; Bedrock, Vertex and Foundry need it
        "ANTHROPIC_DEFAULT_HAIKU_MODEL",
        "ANTHROPIC_DEFAULT_OPUS_MODEL",
        "ANTHROPIC_DEFAULT_SONNET_MODEL",
        "ANTHROPIC_SMALL_FAST_MODEL",
        # Amazon Bedrock
        "ANTHROPIC_BEDROCK_BASE_URL",
        "ANTHROPIC_SMALL_FAST_MODEL_AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_CONFIG_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH",
        "CLAUDE_CODE_USE_BEDROCK",
        # Google Vertex AI
        "ANTHROPIC_VERTEX_BASE_URL",
        "ANTHROPIC_VERTEX_PROJECT_ID",
        "CLAUDE_CODE_SKIP_VERTEX_AUTH",
        "CLAUDE_CODE_USE_VERTEX",
        "CLOUD_ML_REGION",
        "GCLOUD_PROJECT",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_PROJECT",
        # Microsoft Foundry
        "ANTHROPIC_FOUNDRY_API_KEY",
        "ANTHROPIC_FOUNDRY_BASE_URL",
        "ANTHROPIC_FOUNDRY_RESOURCE",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_TENANT_ID",
        "CLAUDE_CODE_SKIP_FOUNDRY_AUTH",
        "CLAUDE_CODE_USE_FOUNDRY",
    }
)
"""Claude's credentials, and the addresses of its API."""

_CLOUD_SWITCHES = frozenset(
    {"CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_FOUNDRY", "CLAUDE_CODE_USE_VERTEX"}
)
"""Without one of these, Claude ignores the variables of the clouds."""

LOGIN_REPLACING_NAMES = _CLOUD_SWITCHES | {
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
}
"""If one of these is set, Claude does not use the login on this host."""

CERTIFICATE_NAMES = frozenset(
    {
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
    }
)
"""Each names a file or directory of certificates to trust."""

CONNECTION_NAMES = CERTIFICATE_NAMES | frozenset(
    {
        "API_TIMEOUT_MS",
        "ALL_PROXY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "all_proxy",
        "https_proxy",
        "http_proxy",
        "no_proxy",
        "CLAUDE_CODE_CERT_STORE",
        "CLAUDE_CODE_CLIENT_CERT",
        "CLAUDE_CODE_CLIENT_KEY",
        "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE",
        "LANG",
        "LANGUAGE",
        "LC_ALL",
        "LC_COLLATE",
        "LC_CTYPE",
        "LC_MESSAGES",
        "LC_MONETARY",
        "LC_NUMERIC",
        "LC_TIME",
        "NODE_USE_ENV_PROXY",
        "TZ",
    }
)
"""Proxies, certificates, language and time zone."""

CLAUDE_SECRET_NAMES = frozenset(
    {
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_FOUNDRY_API_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_CLIENT_SECRET",
        "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE",
        "CLAUDE_CODE_OAUTH_TOKEN",
    }
)
"""Secret values. Claude itself has no variable that names a file for them."""

PASSED_NAMES = CLAUDE_CREDENTIAL_NAMES | CONNECTION_NAMES
"""All variables that Claude may get from the worker's environment."""

HIDEABLE_NAMES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
"""Credentials that the proxy can add to a request. Credentials of clouds sign each request."""


def credential_identity(passed: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that distinguish one credential from another."""
    names = LOGIN_REPLACING_NAMES | {"ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS"}
    if not _CLOUD_SWITCHES.isdisjoint(passed):
        names = CLAUDE_CREDENTIAL_NAMES
    return {
        name: value
        for name, value in passed.items()
        if name in names and not name.endswith(("_MODEL", "_REGION"))
    }


def can_hide_credential(passed: Mapping[str, str]) -> bool:
    """Return whether the proxy can add the credential, so that Claude does not need it."""
    return _CLOUD_SWITCHES.isdisjoint(passed) and not set(HIDEABLE_NAMES).isdisjoint(passed)
