"""Which commands of tests look as if they changed the host."""

from __future__ import annotations

import re

WRITERS = """
    mkdir rmdir rm touch mv cp ln tee chmod chown install dd truncate mktemp mkfifo mknod shred split
    rsync scp patch unzip
    useradd userdel usermod groupadd groupdel adduser deluser passwd chpasswd
    crontab at nohup setsid systemd-run
    kill pkill killall mount umount swapon swapoff modprobe insmod rmmod reboot shutdown poweroff halt
    nvidia-modprobe dpkg-reconfigure
"""
"""Programs that change something whenever they run."""

USES = r"""
    mkfs\S* | update-\S+
    | sed\s[^|;]*-i | perl\s[^|;]*-i | tar\s+\S*x | find\s[^|;]*-delete | sysctl\s[^|;]*-w
    | systemctl\s+(?:-\S+\s+)*(?!is-|show|status|list|cat|get|--)[\w-]+
    | service\s+\S+\s+(?!status)\w+
    | apt(?:-get)?\s+(?!-s|list|show|policy)\S+ | apt-mark\s+(?!show)\S+
    | (?:dnf|yum)\s+(?!list|info|repo)\S+
    | dpkg\s+(?:-i|-r|-P|--configure|--unpack) | rpm\s+-[iUe]\S* | pip\d?\s+(?:un)?install
    | docker\s+(?:run|rm|rmi|create|start|stop|restart|kill|pull|build|exec|cp|tag)
    | docker\s+(?:pause|unpause|volume|network|compose)
    | git\s+(?:clone|pull|checkout|commit)
"""
"""Programs that change something with these words."""

BEGINS = r"""
    (?:^|[;&|({`]|\$\(|\b(?:sudo|env|xargs|exec|then|do|else|sh\s+-c|-exec|timeout\s+\S+)\s)
    \s*['\"]?(?:/\S*/)?
"""
"""What stands before the name of a program."""

TO_A_FILE = r"(?<![0-9&>-])[12]?>{1,2}\s*(?!&|/dev/(?:null|std|fd)|\(|=)\S"
"""Output that goes to a file."""

CHANGES = re.compile(
    rf"(?:{BEGINS})(?:{'|'.join(WRITERS.split())}|{USES})(?![\w.=-])|{TO_A_FILE}", re.MULTILINE | re.VERBOSE
)


def changes_something(line: str) -> bool:
    """Whether a command looks as if it changed the host. What looks so and does not only costs time."""
    return CHANGES.search(line) is not None
