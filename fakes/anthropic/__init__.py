"""The scripted model: a fake of the Anthropic API."""
