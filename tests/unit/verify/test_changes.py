"""Which commands of tests run only when their test does."""

from __future__ import annotations

import pytest

from provision.verify.changes import changes_something

WRITING = """
mkdir /x
echo a >>/tmp/x
echo a > x
printf x 1>/tmp/a
rm -rf /tmp/fx
/bin/rm x
sudo touch /x
systemctl restart docker
systemctl --no-block start x
systemctl daemon-reload
cat a | tee b
sh -c 'mkdir x'
docker run --rm x
docker exec c ls
true && rm x
apt-get install -y x
sed -i s/a/b/ f
x=$(mktemp)
mktemp
kill -9 $$
find / -name x -delete
dpkg -i x.deb
sysctl -w a=1
if true; then rm x; fi
(sleep 0.4; touch /x) >/dev/null 2>&1 &
"""
READING = """
echo out; echo err >&2; exit 3
cat /proc/uptime
systemctl show docker
systemctl is-active x
systemctl status x 2>&1
systemctl --version
ls >/dev/null
ls 2>/dev/null | head
printf %s 'it'
df --output=pcent / | tail -1
test 3 -gt 2
head -c 300000 /dev/zero | tr '\\0' x
id -un
docker ps -a
docker inspect x
nvidia-smi -L
timedatectl show --property=NTP --value
dpkg -l
rpm -qa
apt-cache policy x
apt list --installed
stat -c %a /rm
cat /etc/mkdir
grep -rm1 touch /etc
python3 -c 'print(1 >= 2)'
sysctl -n net.ipv4.ip_forward
for i in $(seq 2000); do echo $i; echo $i >&2; done
awk '/MemTotal/ {print $2}' /proc/meminfo
install-info --version
journalctl -u x -n 5
crictl ps
"""


@pytest.mark.parametrize("line", [*WRITING.strip().splitlines(), "cat <<E >/etc/x\nE", "true\nrm x"])
def test_what_writes_runs_when_its_test_does(line: str) -> None:
    assert changes_something(line)


@pytest.mark.parametrize("line", READING.strip().splitlines())
def test_what_reads_may_be_asked_ahead(line: str) -> None:
    assert not changes_something(line)
