# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts that listeners and routes are made of: each format refuses what nginx would misunderstand. Pure.

A format takes a text and raises Refused with what is wrong and what to do. Texts with nginx variables in them are told
from plain ones, because a `$` that nobody meant as a variable is a way to read what should not be read.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

_HOST = re.compile(r"(\*\.)?[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*\Z")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,11})[kKmMgG]?\Z")
_VARIABLE = re.compile(r"\$(?:\{[a-z0-9_]+\}|[a-z0-9_]+)")
_PRIVATE = ("ssl_client_raw_cert", "document_root", "realpath_root", "request_filename", "pid", "nginx_version")


class Refused(ValueError):
    """A text that is not in its format: `rule` says what it must be, `hint` what to do."""

    def __init__(self, rule: str, hint: str) -> None:
        super().__init__(f"{rule}; {hint[:1].lower()}{hint[1:].rstrip('.')}")
        self.rule = rule
        self.hint = hint


def line(text: str) -> None:
    """One line without control characters; nginx variables are allowed in it."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise Refused("has a line break or a control character", "Write it on one line.")
    for match in re.finditer(r"\$", text):
        if not _VARIABLE.match(text, match.start()) and text[match.start() :] not in ("$", "$)"):
            raise Refused("has a $ that begins no nginx variable", "Write ${name}, or leave the $ out.")
    for name in _PRIVATE:
        if re.search(rf"\$\{{?{name}\b", text):
            raise Refused(f"uses the variable ${name}, which tells about the balancer's host", "Leave it out.")


def plain(text: str) -> None:
    """One line without nginx variables."""
    line(text.replace("$", ""))
    if "$" in text:
        raise Refused("has a $, and no nginx variable is read here", "Leave the $ out.")


def body(text: str) -> None:
    """Text of an answer: any lines, no variables."""
    if any(ord(character) < 32 and character not in "\n\t\r" for character in text):
        raise Refused("has a control character", "Use printable text and line breaks.")
    if "$" in text:
        raise Refused("has a $, and no nginx variable is read here", "Write &#36; in HTML, or leave the $ out.")


def host_name(text: str) -> None:
    """A host name in lower case, or one with `*.` before it."""
    if len(text) > 253 or not _HOST.match(text):
        raise Refused("is no host name in lower case", "Write it like www.example.org or *.example.org.")


def path(text: str) -> None:
    """The beginning of a URL path, or all of it."""
    plain(text)
    if not text.startswith("/") or any(character in text for character in " ?#\"'\\;{}"):
        raise Refused("is no URL path", "Begin it with / and leave out blanks, ?, # and quotes.")


def location(text: str) -> None:
    """What a route matches a path with: a path, or a regular expression when it does not begin with `/`."""
    _own_variables(text)
    if not text.startswith("/"):
        pattern(text)
    else:
        line(text)


def pattern(text: str) -> None:
    """A regular expression, roughly checked here; nginx checks it again with PCRE."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text) or not text:
        raise Refused("has a line break or a control character, or is empty", "Write it on one line.")
    _own_variables(text)
    try:
        re.compile(re.sub(r"\(\?<([A-Za-z])", r"(?P<\1", text))
    except re.error as error:
        raise Refused(f"is no regular expression: {error}", "Correct it.") from None


def _own_variables(text: str) -> None:
    """A group of a pattern and a directive can set variables; those that say where a request goes are not theirs."""
    if "qnet_" in text.lower():
        raise Refused(
            "has a name with qnet_, which is the balancer's own", "Use another one, or an option like headers."
        )


def header(text: str) -> None:
    """The name of an HTTP header."""
    if not _HEADER.match(text) or "$" in text:
        raise Refused("is no name of an HTTP header", "Use letters, digits and hyphens.")


def word(text: str) -> None:
    """The name of a cookie, an argument or a parameter."""
    if not _WORD.match(text):
        raise Refused("is no plain name", "Use letters, digits, _, . and -, 128 at most.")


def identifier(text: str) -> None:
    """The name of a cookie that becomes part of a variable's name."""
    if not re.fullmatch(r"[A-Za-z0-9_]{1,128}", text):
        raise Refused("is no identifier", "Use letters, digits and _.")


def size(text: str) -> None:
    """An amount of bytes as nginx writes it."""
    if not _SIZE.match(text):
        raise Refused("is no size", "Write it like 512, 16k, 10m or 1g.")


def client(text: str) -> None:
    """An address or a subnet, IPv4 or IPv6, or `all`."""
    if text == "all":
        return
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise Refused("is no address and no subnet", "Write it like 192.0.2.7, 192.0.2.0/24 or all.") from None


def file(text: str) -> None:
    """A file: absolute on the balancer's host, or beside the inventory."""
    plain(text)
    if not text or (".." in text.split("/") and text.startswith("/")) or re.search(r"[;{}\"'\\\s]", text):
        raise Refused("is no path of a file", "Write an absolute path, or one relative to the inventory.")


def directory(text: str) -> None:
    """A directory on the balancer's host."""
    file(text)
    if not text.startswith("/"):
        raise Refused("is no absolute path", "Begin it with /.")
    if text.rstrip("/") in ("", "/etc", "/root", "/proc", "/sys", "/dev") or text.startswith(
        ("/etc/", "/root/", "/proc/", "/sys/", "/dev/")
    ):
        raise Refused("is a directory of the system", "Serve files from a directory of their own, like /srv/www.")


_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


def label(text: str) -> None:
    """A DNS label."""
    if not re.fullmatch(_LABEL, text):
        raise Refused("is no DNS label", "Use lower case letters, digits and inner hyphens, 63 at most.")


def upstream_service(text: str) -> None:
    """``group/service``."""
    if not re.fullmatch(f"{_LABEL}/{_LABEL}", text):
        raise Refused("is no service, said as group/service", "Write it like alice/resize.")


_FORBIDDEN = re.compile(
    r"^(?:alias|root|include|load_module|env|user|pid|daemon|error_log|access_log|working_directory|listen|server"
    r"|server_name|location|upstream|http|stream|events|mail|resolver|ssl_\w*key|ssl_\w*certificate|ssl_password_file"
    r"|auth_basic_user_file|proxy_pass|grpc_pass|\w+_pass|proxy_store|proxy_bind|\w*_temp_path|proxy_cache_path"
    r"|dav_\w+|create_full_put_path|client_body_in_file_only|js_\w+|perl\w*|lua_\w+|\w*_by_lua\w*|geo|map|split_clients"
    r"|mirror|auth_request|post_action|memcached_\w+|uwsgi_\w+|scgi_\w+|fastcgi_\w+)$"
)


def snippet(text: str) -> None:
    """Directives of nginx, one statement after the other, none of which loads code, reads files or goes elsewhere."""
    _own_variables(text)
    for name in _statements(text):
        if _FORBIDDEN.match(name):
            raise Refused(f"has the directive {name}, which a snippet may not use", "Use the option made for it.")


def _statements(text: str) -> t.Iterator[str]:
    """The name of each directive; Refused where braces or quotes do not match."""
    begins, depth, position = True, 0, 0
    token = re.compile(
        r"\s+|#[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[;{}]|(?:\\.|\$\{[a-z0-9_]+\}|[^\s;{}\"'#])+"
    )
    while position < len(text):
        match = token.match(text, position)
        if match is None:
            raise Refused("has a quote that is not closed", "Close it.")
        position = match.end()
        found = match[0]
        if found.isspace() or found.startswith("#"):
            continue
        if found in ";{":
            begins, depth = True, depth + (found == "{")
        elif found == "}":
            begins, depth = True, depth - 1
            if depth < 0:
                raise Refused("closes a brace that it did not open", "Remove it.")
        elif begins:
            begins = False
            yield re.sub(r"[\"'\\]", "", found).lower()
    if depth or not begins:
        raise Refused("ends inside of a directive or a block", "End every directive with ; and close every brace.")


FORMATS: dict[str, t.Callable[[str], None]] = {
    "dns-label": label,
    "l7-line": line,
    "l7-plain": plain,
    "l7-body": body,
    "l7-host": host_name,
    "l7-path": path,
    "l7-location": location,
    "l7-pattern": pattern,
    "l7-header": header,
    "l7-word": word,
    "l7-identifier": identifier,
    "l7-size": size,
    "l7-client": client,
    "l7-file": file,
    "l7-directory": directory,
    "l7-service": upstream_service,
    "l7-snippet": snippet,
}
