"""Values of settings that several packages use."""
