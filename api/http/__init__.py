"""HTTP itself: which requests are taken, from whom, and how long they may take."""
