"""One command on its channel: sent, followed, and its end understood."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import paramiko
import paramiko.common

from provision.connection.frames import KILL_AFTER, NOISE, Frame, Unframed
from provision.connection.login import Login
from provision.connection.session import PATIENCE, reason
from provision.connection.sudo import refusal
from provision.errors import HostError, UnreachableError
from provision.probe import Output

GRACE = 5.0
"""Seconds by which the host may be late with ending a script that is out of time."""
QUIET = 5.0
"""Seconds of silence after which an exec with an exit code is over, though something that it left in the
background still holds its output open."""
SIGN_OF_LIFE = 30.0
"""Seconds that sshd has to answer when a silent session is asked whether it is still there."""
CHUNK = 1 << 15
"""Bytes sent at once; sshd takes packets of 32 KiB."""
LARGEST_ANSWER = 8 << 20
"""Bytes that a command may print on both streams together."""
LONGEST_LINE = 1 << 16
"""Bytes of a line that is passed on as it comes."""
EXPIRED = b"Password change required but no TTY available"
"""What sshd says in place of a command where the password has to be changed first (OpenSSH, session.c)."""


class UnfinishedError(HostError):
    """A command was ended on the host before it was done: killed, or out of time.

    :param partial: what it had printed until then.
    """

    def __init__(self, host: str, message: str, *, partial: Output, hint: str | None = None) -> None:
        super().__init__(host, message, hint=hint)
        self.partial = partial


class ExpiredPasswordError(HostError):
    """sshd starts no command before the user has changed the password."""


class DeadlineError(UnfinishedError):
    """A command did not end in the time it was given."""


class FloodError(UnfinishedError):
    """A command printed more than :data:`LARGEST_ANSWER`, or a line longer than :data:`LONGEST_LINE`."""


class _Wake(threading.Event):
    """The event of a channel's two buffers: each clears it when it is empty, but the other may not be."""

    def clear(self) -> None:
        """Leave it set: only who has read both buffers may forget."""

    def forget(self) -> None:
        """Clear it, before the buffers are read."""
        super().clear()


class Execution:
    """One command on its channel: everything is sent and received by the thread that waits for it."""

    def __init__(
        self,
        login: Login,
        timeout: float,
        what: str,
        on_line: Callable[[bytes], None] | None,
        then: Callable[[Output], str] | None = None,
    ) -> None:
        self.login, self.timeout, self.what, self.on_line = login, timeout, what, on_line
        self.then = then
        self.frame = Frame()
        self.stdout, self.stderr = Unframed(self.frame), Unframed(self.frame)
        self.line = b""
        self.wake = _Wake()
        self.asks = login.needs_sudo and login.become_password is not None
        self.pending = memoryview(b"")
        self.held = b""
        self.closing = False
        self.started = self.heard = self.alive = time.monotonic()

    def run(self, transport: paramiko.Transport, script: str, stdin: bytes) -> Output:
        """Start the command on a new channel, and read it to its end.

        :raises UnreachableError: where the session is lost.
        :raises UnfinishedError: where the script does not end in its time, prints too much, or was killed.
        """
        payload = self.frame.script(script, stdin)
        if self.asks:
            assert self.login.become_password is not None
            self.pending = memoryview(self.frame.answer_to_prompt(self.login.become_password))
            self.held = self.frame.after_prompt() + payload
        else:
            self.pending, self.closing = memoryview(payload), self.then is None
        first = len(payload) if self.then else 0
        channel = self._channel(transport, self.frame.command(self.login, self.timeout, first))
        try:
            self._converse(channel)
            return self._answer(channel, transport)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(reason(error)) from None
        finally:
            channel.close()

    def _channel(self, transport: paramiko.Transport, command: str) -> paramiko.Channel:
        """Open a channel and start the command.

        paramiko's exec_command waits for sshd's confirmation without limit; we wait for the answer itself. A
        script takes three round trips: sshd opens the window for stdin only when the command has started.
        """
        try:
            channel = transport.open_session(timeout=max(self.login.connect_timeout, PATIENCE))
        except paramiko.ChannelException as error:
            hint = "is MaxSessions in its sshd_config 0, or the account limited to other uses?"
            raise HostError(self.login.host, f"sshd refused a session: {reason(error)}", hint=hint) from None
        except Exception as error:  # noqa: BLE001  # of any kind, if what the host sent makes no sense
            raise self._lost(reason(error)) from None
        channel.in_buffer.set_event(self.wake)
        channel.in_stderr_buffer.set_event(self.wake)
        channel.settimeout(0.0)
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        transport._send_user_message(message)  # type: ignore[attr-defined]
        return channel

    def _converse(self, channel: paramiko.Channel) -> None:
        """Send and receive until both streams have ended, or nothing more is to be expected."""
        while True:
            self.wake.forget()
            busy = self._receive(channel)
            busy |= self._send(channel)
            now = time.monotonic()
            self._check_time(now)
            if busy:
                continue
            if channel.closed or channel.eof_received:
                channel.status_event.wait(GRACE)
                while self._receive(channel):  # what came between the look above and the end
                    self._check_time(time.monotonic())
                return
            if channel.exit_status_ready() and now - self.heard > QUIET:
                return
            self._check_life(channel, now)
            blocked = self.pending and not channel.send_ready()
            self.wake.wait(0.01 if blocked else 0.5)

    def _receive(self, channel: paramiko.Channel) -> bool:
        """Take what is there, a part of it at a time; whether there was any."""
        busy = False
        if channel.recv_ready():
            self._deliver(self.stdout.feed(channel.recv(1 << 20)))
            busy = True
        if channel.recv_stderr_ready():
            self.stderr.keep(self.stderr.feed(channel.recv_stderr(1 << 20)))
            busy = True
        if busy:
            self.heard = self.alive = time.monotonic()
            self._check_size()
            self._let_in()
            self._go_on()
        return busy

    def _deliver(self, data: bytes) -> None:
        """Keep ``data``, or pass on the lines that it completes; what is begun waits for its end."""
        if self.on_line is None:
            self.stdout.keep(data)
            return
        *lines, self.line = (self.line + data).split(b"\n")
        for line in lines:
            self.on_line(line)
        if len(self.line) > LONGEST_LINE:
            raise self._flooded(f"a line of more than {LONGEST_LINE >> 10} KiB")

    def _check_size(self) -> None:
        if self.stdout.size + self.stderr.size > LARGEST_ANSWER:
            raise self._flooded(f"more than {LARGEST_ANSWER >> 20} MiB")
        if not self.stdout.marked and self.stdout.size + self.stderr.size > NOISE:
            raise self._not_started(f"more than {NOISE >> 10} KiB were printed before the command started")

    def _let_in(self) -> None:
        """Send the script once sudo has started the loader; send no more where sudo asks a second time."""
        if self.held and self.stdout.marked:
            self.pending, self.held, self.closing = memoryview(self.held), b"", self.then is None
        elif self.held and self.stderr.noise.count(self.frame.prompt) > 1:
            self.held, self.closing = b"", True

    def _go_on(self) -> None:
        """Send the second script of a conversation once the first one has ended."""
        if self.then is not None and self.stdout.has_part and self.stderr.has_part:
            then, self.then = self.then, None
            first = Output(0, self.stdout.take_part(), self.stderr.take_part())
            self.pending, self.closing = memoryview(self.frame.script(then(first))), True

    def _send(self, channel: paramiko.Channel) -> bool:
        """Send what the window allows. A command may end without reading: then the rest is dropped."""
        busy = False
        try:
            while self.pending and channel.send_ready():
                count = channel.send(bytes(self.pending[:CHUNK]))
                if count == 0:
                    break  # closed by the host
                self.pending = self.pending[count:]
                busy = True
            if self.closing and not self.pending:
                self.closing = False
                channel.shutdown_write()
        except OSError:
            if not channel.closed:
                raise
            self.pending, self.closing = memoryview(b""), False
        return busy

    def _check_time(self, now: float) -> None:
        passed = now - self.started
        if self.asks and not self.stdout.marked and passed > PATIENCE:
            raise self._not_started(f"sudo did not start the command within {PATIENCE:g} s")
        if passed > self.timeout + KILL_AFTER + GRACE:
            if not self.stdout.marked:
                raise self._not_started(f"the host did not start the command within {self.timeout:g} s")
            raise self._late(passed)

    def _check_life(self, channel: paramiko.Channel, now: float) -> None:
        """Ask a silent sshd for an answer: behind a jump host, TCP does not notice that it is gone."""
        if now - self.alive < self.login.keepalive:
            return
        transport = channel.get_transport()
        ask = threading.Thread(target=transport.global_request, args=("keepalive@openssh.com",), daemon=True)
        ask.start()
        ask.join(SIGN_OF_LIFE)
        self.alive = time.monotonic()
        if ask.is_alive():
            passed = self.alive - self.heard
            transport.close()
            raise self._lost(f"no answer for {passed:.0f} s")

    def _answer(self, channel: paramiko.Channel, transport: paramiko.Transport) -> Output:
        passed = time.monotonic() - self.started
        if not channel.exit_status_ready() or channel.exit_status == -1:
            transport.join(0.5)  # its thread marks channels as closed before it marks itself as ended
            if not transport.is_active():
                raise self._lost("the session ended")
            raise self._killed(passed)
        if not self.stdout.marked:
            raise self._not_started(f"the host did not start the command (exit code {channel.exit_status})")
        if channel.exit_status in {124, 137} and passed >= self.timeout:
            raise self._late(passed)
        if self.on_line is not None and self.line:
            self.on_line(self.line)
        return Output(channel.exit_status, self.stdout.data, self.stderr.data)

    def _lost(self, reason: str) -> UnreachableError:
        passed = time.monotonic() - self.started
        message = f"the connection was lost after {passed:.1f} s of {self.what}: {reason}"
        return UnreachableError(self.login.host, message, hint="did the host reboot, or the network change?")

    def _killed(self, passed: float) -> UnfinishedError:
        partial = Output(137, self.stdout.data, self.stderr.data)
        message = f"{self.what}: killed on the host after {passed:.0f} s"
        hint = (
            "did a program print without end, and the host run out of memory? see `journalctl -k` on the host"
        )
        return UnfinishedError(self.login.host, message, partial=partial, hint=hint)

    def _flooded(self, much: str) -> FloodError:
        partial = Output(137, b"", self.stderr.data)
        hint = "run it by hand on the host: something there prints without end"
        return FloodError(self.login.host, f"{self.what} printed {much}", partial=partial, hint=hint)

    def _late(self, passed: float) -> DeadlineError:
        partial = Output(124, self.stdout.data, self.stderr.data)
        message = f"{self.what} did not end within {self.timeout:g} s (waited {passed:.0f} s)"
        return DeadlineError(self.login.host, message, partial=partial)

    def _not_started(self, message: str) -> HostError:
        """Return why the loader did not start: sudo or the login shell."""
        said = self.stderr.noise.replace(self.frame.prompt, b"")
        host = self.login.host
        if EXPIRED in said + self.stdout.noise:
            message = f"the password of {self.login.user} has expired, and must be changed at the next login"
            hint = "change it by hand (ssh), or give bootstrap.new_password to inv bare.bootstrap"
            return ExpiredPasswordError(host, message, hint=hint)
        if self.login.needs_sudo:
            if self.stderr.noise.count(self.frame.prompt) > 1:
                said = b"incorrect password attempt"
            known = refusal(said, self.login.user)
            if known is not None:
                return HostError(host, known[0], hint=known[1])
        noise = said + b"\n" + self.stdout.noise
        if self.login.become_password:
            # A shell that echoes what it reads has shown it.
            answer = self.frame.answer_to_prompt(self.login.become_password)
            noise = noise.replace(answer.strip(b"\n"), b"***")
        words = noise.decode("utf-8", "backslashreplace").split("\n")
        last = next((line.strip() for line in words if line.strip()), "no message")
        hint = f"see the login shell and the rc files of {self.login.user} on the host"
        return HostError(host, f"{message}: {last[:200]}", hint=hint)
