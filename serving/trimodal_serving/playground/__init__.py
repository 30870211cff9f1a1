"""A page for browsers, on which everything that the server does can be tried."""
