"""All settings. This package is the only reader of the environment."""

from settings.claude import ClaudeSettings
from settings.environment import SECRET_NAMES, current_environment
from settings.problems import SettingsError
from settings.repositories import GithubSettings
from settings.settings import Settings

__all__ = [
    "SECRET_NAMES",
    "ClaudeSettings",
    "GithubSettings",
    "Settings",
    "SettingsError",
    "current_environment",
]
