"""Published tables: declared in conf/table, measured from runs, written beside the published values."""
