"""What was ordered: settings that say what a host is to be made of, compared with what it is. Pure."""
