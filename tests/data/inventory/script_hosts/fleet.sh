#!/bin/sh
case $1 in
--list) echo '{"gpu": {"hosts": ["p1", "p2"], "vars": {"a": 1}}}' ;;
--host) [ "$2" = p1 ] && echo '{"mine": "p1"}' ;;
esac
exit 0
