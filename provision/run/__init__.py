"""What talks to hosts: probes gathered, plans applied, one host's run and the fleet's."""
