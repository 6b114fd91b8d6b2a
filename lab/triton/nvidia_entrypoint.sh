#!/bin/sh
# Stand-in for the entrypoint of NVIDIA's images: a banner when it has a terminal, then the command.
if [ -t 1 ]; then
    echo
    echo "=============================="
    echo "== Triton Inference Server ==  (lab image: the real tritonserver in a Debian root)"
    echo "=============================="
    [ -e /dev/nvidiactl ] || {
        echo
        echo "WARNING: The NVIDIA Driver was not detected.  GPU functionality will not be available."
    }
    echo
fi
[ $# -gt 0 ] || set -- /bin/bash
exec "$@"
