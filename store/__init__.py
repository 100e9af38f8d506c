"""Where rows are kept. Rows never leave this room: callers see the words of `domain`."""
