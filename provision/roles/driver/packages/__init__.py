"""Which packages make up the driver of a host: the table, and how a host's row is found."""
