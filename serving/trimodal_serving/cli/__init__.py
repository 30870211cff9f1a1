"""Commands beside `trimodal serve`: one file a subcommand."""
