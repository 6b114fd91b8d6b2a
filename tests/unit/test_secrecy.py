"""What may be a secret is shown nowhere: names of variables, values, addresses, texts of programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.connection.client_config import SshConfig
from provision.errors import InventoryError, RefusedError
from provision.inventory import Host
from provision.inventory.settings import read
from provision.inventory.sources import load
from provision.plan.script import parse_event
from provision.resource import unified
from provision.roles import all_roles
from provision.run.ways_in import way_in
from provision.secrecy import masked, without_secrets

SECRET = "s3cret"
ROLES = {role.name: role for role in all_roles()}

HIDDEN: dict[str, Any] = {
    "ansible_become_password": SECRET,
    "ansible_ssh_pass": SECRET,
    "ansible_password": 12345,
    "pw": SECRET,
    "ngc_api_key": SECRET,
    "HF_TOKEN": SECRET,
    "secrets": {"any": {"thing": [SECRET]}},
    "env": {"ANY": SECRET, "OTHER": 3},
    "labels": [f"proxy-password={SECRET}"],
    "args": [f"--api-key={SECRET}"],
    "words": ["--http-restricted-api", f"model-repository:key={SECRET}"],
    "option": ["--password", SECRET],
    "restricted": [f"--http-restricted-api=model-repository:key={SECRET}"],
    "shortened": [f"--http-r=trace:key={SECRET}", f"--grpc_restricted-protocol trace:key={SECRET}"],
    "proxy": f"http://me:{SECRET}@proxy:1",
    "odd": f"https://me:{SECRET}/@x@host/y",
    "tokens": {"splunk-token": SECRET},
    "access_tokens": {"a": SECRET},
    "list": [{"name": "DB_PASSWORD", "value": SECRET}],
    "registry_logins": f"u:{SECRET}",
    "image": f"u:{SECRET}@reg/x:1",
    "url": f"https://h/x?token={SECRET}",
    "multi": f"foo\nexport DB_PASSWORD={SECRET}; x\n",
    "command": f"mysql --password {SECRET}",
    "http-headers": {"Authorization": SECRET},
    "pem": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n",
}
SHOWN: dict[str, Any] = {
    "ansible_ssh_private_key_file": "~/.ssh/id",
    "host_key": "ssh-ed25519 AAAA",
    "tokenizer": "llama",
    "ansible_become": True,
    "uri": "https://host/a",
    "image": "a/b@sha256:0",
    "password": "",
    "token": None,
    "args": ["--x=1", "--http-port", "8000", "--reuse-grpc-port=1"],
    "env": {},
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_may_be_a_secret_is_masked(name: str) -> None:
    shown = str(masked({name: HIDDEN[name]}))
    assert "(hidden)" in shown
    assert SECRET not in shown
    assert "12345" not in shown


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_none_is_shown(name: str) -> None:
    assert masked({name: SHOWN[name]}) == {name: SHOWN[name]}


TEXTS = {
    "an address": f"Get https://me:{SECRET}@host/v2/: refused",
    "an address in quotes": f'parse "http://me:{SECRET}@proxy:x": invalid port',
    "json": f'{{"log-opts": {{"splunk-token": "{SECRET}"}}}}',
    "json with a quote in it": f'"a-password": "x\\"{SECRET}",',
    "json without blanks": f'"password":"{SECRET}"',
    "json with a pair": f'{{"labels":["a-password=x {SECRET}"]}}',
    "ini": f"password = {SECRET} {SECRET}",
    "yaml": f"  api_key: {SECRET}",
    "environment": f"HF_TOKEN={SECRET}",
    "a unit": f"Environment=API_TOKEN={SECRET}",
    "a line of pairs": f"a=1 PASSWORD={SECRET} b=2",
    "a query": f"http://h/x?sig=a&password={SECRET}&c=d",
    "words of a unit": f'    "--api-key" "{SECRET}" \\',
    "lines of a unit": f"    --http-restricted-api \\\n    trace:key={SECRET} \\",
    "Triton's argument": f"    --http-restricted-api=metadata,trace:key={SECRET} \\",
    "one in quotes": f'    "--grpc-restricted-protocol=trace:key={SECRET} x" \\',
    "Triton's words": f"it runs with --http-restricted-api trace:key={SECRET}",
    "an option": f"mysql --password {SECRET}",
    "a key": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_texts_are_shown_without_secrets(text: str) -> None:
    assert SECRET not in without_secrets(f"before\n{text}\nafter\n")
    assert SECRET not in unified("", f"{text}\n", "/f")
    assert SECRET not in RefusedError("n1", text).message


@pytest.mark.parametrize(
    "text",
    [
        "unauthorized: a login is wanted",
        "the password of bob is wrong",
        "a@b",
        "",
        "2/3 changed: service:triton@main.service (4.2 s)",
        "image-of:triton@next.service: it runs another image",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert without_secrets(text) == text


def test_what_a_step_printed_is_shown_without_secrets() -> None:
    encoded = "cHJveHkgaHR0cDovL21lOnMzY3JldEBoOiBiYWQ="  # proxy http://me:s3cret@h: bad
    assert parse_event(f"fail 0 1 5 {encoded}").output == "proxy http://(hidden)@h: bad"


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a repository's password": ("docker", {"source": "docker", "repo": {"uri": f"https://me:{SECRET}@h/x"}}),
    "its password alone": ("docker", {"source": "docker", "repo": {"uri": f"https://:{SECRET}@h/x"}}),
    "its password with a slash": ("docker", {"source": "docker", "repo": {"uri": f"https://a:b/{SECRET}@h"}}),
    "its password with a blank": ("docker", {"source": "docker", "repo": {"uri": f"https://a: {SECRET}@h"}}),
    "its token": ("docker", {"source": "docker", "repo": {"uri": f"https://h/x?token={SECRET}"}}),
    "a mirror's password": ("driver", {"mirror": {"base": f"http://me:{SECRET}@h"}}),
    "a variable that is no string": (
        "triton",
        {"instances": {"a": {"image": "a:1", "env": {"T": [SECRET]}}}},
    ),
    "a variable with NUL": ("triton", {"instances": {"a": {"image": "a:1", "env": {"T": f"{SECRET}\0"}}}}),
    "a variable that is a template": (
        "triton",
        {"instances": {"a": {"image": "a:1", "env": {"T": f"{SECRET}{{{{"}}}},
    ),
    "a registry's password": ("triton", {"registry_logins": {"r": {"user": "a:b", "password": SECRET}}}),
    "one that is no string": ("triton", {"registry_logins": {"r": {"user": "a", "password": [SECRET]}}}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_shows_no_secret(case: str) -> None:
    name, settings = REFUSED[case]
    if repo := settings.get("repo"):
        repo |= {"suite": "x", "components": ["y"], "key": "k", "fingerprint": "f"}
    with pytest.raises(InventoryError) as caught:
        read(ROLES[name].settings, Host("n1", vars={name: settings}), name)
    assert SECRET not in f"{caught.value} {caught.value.hint}"


KNOWN: dict[str, Any] = {
    "ansible_become_password": "Pw7x",
    "ansible_password": "open",
    "bootstrap": {"password": 'one"two', "new_password": "a\nlonger line\n"},
    "triton": {
        "registry_logins": {"reg.test:5000": {"user": "puller", "password": "Reg-1"}},
        "instances": {
            "main": {
                "image": "reg.test:5000/tritonserver:24.07-py3",
                "env": {
                    "MYSTERY": "envSECRETplain22",
                    "STAGE": "production",
                    "HOME": "/opt/tritonserver",
                    "TIMEOUT": "30000000",
                    "SHORT": "x-1",
                    "API_TOKEN": "abcdefgh",
                },
            }
        },
    },
}
SAID = {
    "a password": ("sudo: Pw7x is wrong", "sudo: (hidden) is wrong"),
    "a short one": ("open: no", "(hidden): no"),
    "in JSON": ('{"p": "one\\"two"}', '{"p": "(hidden)"}'),
    "a line of one": ("not 'longer line'", "not '(hidden)'"),
    "what basic authentication sends": ("you sent Basic cHVsbGVyOlJlZy0x", "you sent Basic (hidden)"),
    "a registry's": ("= puller:Reg-1", "= puller:(hidden)"),
    "one that was cut": ("xxx envSECRETpl; next", "xxx (hidden); next"),
    "its first letters": ("envSEC", "envSEC"),
    "in an address": ("?p=one%22two&", "?p=(hidden)&"),
    "packed": ("ZW52U0VDUkVUcGxhaW4yMg==", "(hidden)"),
    "one of a server": ("MYSTERY was envSECRETplain22.", "MYSTERY was (hidden)."),
    "a token that is a word": ("abcdefgh", "(hidden)"),
    "a word": ("in production", "in production"),
    "a path": ("/opt/tritonserver/bin", "/opt/tritonserver/bin"),
    "a number": ("30000000 ms", "30000000 ms"),
    "next to nothing": ("x-1", "x-1"),
}


@pytest.mark.parametrize("case", SAID)
def test_known_secrets_are_hidden_in_what_programs_print(case: str) -> None:
    printed, shown = SAID[case]
    login = way_in(Host("n1", vars=KNOWN), SshConfig())
    assert login.secrets(printed) == shown


def test_without_secrets_every_text_stays() -> None:
    assert way_in(Host("n1"), SshConfig()).secrets("a text") == "a text"


def test_secrets_of_groups_are_known(tmp_path: Path) -> None:
    """The settings of a role are merged from all groups; variables of the host are the nearest ones alone."""
    (tmp_path / "hosts.yml").write_text(
        "all:\n  vars: {triton: {instances: {a: {image: 'a:1', env: {T: group-SECRET-1}}}}}\n"
        "  hosts: {n1: {triton: {instances: {a: {env: {U: host-SECRET-2}}}}}}\n"
    )
    [host] = load([str(tmp_path / "hosts.yml")]).select("all")
    assert way_in(host, SshConfig()).secrets("group-SECRET-1 host-SECRET-2") == "(hidden) (hidden)"
