# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of the inventory variables: keys, types, ranges and formats, as schemas/inventory.schema.json says."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_text, _parse
from ansible_collections.qiniu.qnet.plugins.plugin_utils.problem import Path, Problem, nearest, suggest

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

_UNUSABLE = tuple(
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
        *_parse.WAYS_OUT, "::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip


class FormatError(ValueError):
    """A text that is not in its format; `rule` says what it must be, `hint` what to do."""

    def __init__(self, rule: str, hint: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.hint = hint


def shape_problems(schema: Mapping[str, Any], inventory: Mapping[str, Any]) -> list[Problem]:
    """Everything in which `inventory` (variable name to value) differs from `schema`."""
    validator = Draft202012Validator(schema, format_checker=_checker())
    return [problem for error in validator.iter_errors(inventory) for problem in _problems(error)]


def parse_timestamp(text: str) -> datetime:
    """The time that an RFC 3339 text with an offset says; FormatError when it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d", text):
        raise FormatError("is no RFC 3339 time with an offset", 'Write it like "2027-01-01T00:00:00Z", in quotes.')
    return moment


def _problems(error: ValidationError) -> Iterator[Problem]:
    path: Path = tuple(error.absolute_path)
    value: Any = error.instance
    keyword = str(error.validator)
    expected: Any = error.validator_value
    schema: Any = error.schema
    if keyword == "additionalProperties" and isinstance(value, dict):
        known = schema["properties"]
        for key in sorted(set(value) - set(known), key=str):
            hint = suggest(key, known, "Remove it" if path else "Remove it or rename it")
            rule = "is no known key here" if path else "is no known variable"
            yield Problem((*path, str(key)), value[key], rule, hint)
    elif keyword == "required":
        # iter_errors reports every missing key on its own; its name is only in the message.
        key = next((name for name in expected if name not in value and error.message.startswith(f"{name!r} ")), "")
        known = schema.get("properties", {})  # a condition (`then`) requires, and describes nothing
        near = nearest(key, [str(k) for k in value if k not in known]) if known else ""
        described = known[key]["description"] if known else "This kind needs it."
        yield Problem((*path, key), None, "is missing", f"Rename {near} to {key}." if near else f"Add it. {described}")
    elif keyword == "format":
        cause = error.cause
        if not isinstance(cause, FormatError):
            raise TypeError(f"a format of the schema was checked by something else: {cause!r}")
        if isinstance(path[-1] if path else None, str) and "propertyNames" in error.absolute_schema_path:
            path = (*path, str(value))
        yield Problem(path, value, cause.rule, cause.hint)
    else:
        rule, hint = _RULES.get(keyword, _other)(expected, value, error)
        yield Problem(path, value, rule, hint)


_KINDS = {
    "array": "a list",
    "object": "a map of keys to values",
    "string": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
}


def _type(expected: Any, value: Any, error: ValidationError) -> tuple[str, str]:
    if expected == "string" and isinstance(value, (int, float, date)):
        return "must be a text", "Put it in quotes."
    if expected == "integer" and isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        return "must be a whole number", "Remove the quotes (in a template, add | int)."
    hint = _description(error)
    return f"must be {_KINDS.get(expected, expected)}", hint


def _range(expected: Any, value: Any, error: ValidationError) -> tuple[str, str]:
    schema: Any = error.schema
    low, high = schema.get("minimum"), schema.get("maximum")
    return f"is out of range {low} to {high}", f"Use a number from {low} to {high}."


def _enum(expected: Any, value: Any, error: ValidationError) -> tuple[str, str]:
    return f"must be one of {', '.join(map(str, expected))}", suggest(value, map(str, expected), "Use one of them")


def _empty(expected: Any, value: Any, error: ValidationError) -> tuple[str, str]:
    return "must not be empty", "Give at least one, or remove the key."


def _unique(expected: Any, value: Any, error: ValidationError) -> tuple[str, str]:
    twice = sorted({str(v) for v in value if value.count(v) > 1})
    return "names something twice", f"Remove the second {', '.join(twice)}."


def _other(expected: Any, value: Any, error: ValidationError) -> tuple[str, str]:
    return error.message, _description(error)


def _description(error: ValidationError) -> str:
    schema: Any = error.schema
    return str(schema.get("description", "Correct it."))


_RULES: dict[str, Callable[[Any, Any, ValidationError], tuple[str, str]]] = {
    "type": _type,
    "minimum": _range,
    "maximum": _range,
    "enum": _enum,
    "minItems": _empty,
    "minLength": _empty,
    "uniqueItems": _unique,
}


def _checker() -> FormatChecker:
    checker = FormatChecker(formats=())
    for name, check in _FORMATS.items():
        checker.checks(name, raises=FormatError)(_for_text(check))
    return checker


def _for_text(check: Callable[[str], object]) -> Callable[[object], bool]:
    def checked(value: object) -> bool:
        if isinstance(value, str):
            check(value)
        return True

    return checked


def _dns_label(text: str) -> None:
    if not re.fullmatch(LABEL, text):
        fixed = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
        raise FormatError(
            "is no DNS label (lower case letters, digits and inner hyphens, 63 at most)",
            f"Rename it, for example to {fixed}." if fixed else "Rename it.",
        )


def _service_reference(text: str) -> None:
    if not re.fullmatch(f"{LABEL}/{LABEL}", text):
        raise FormatError("is no service, said as group/service", "Write it like alice/resize.")


def _subnet(text: str) -> None:
    try:
        subnet = ipaddress.ip_network(text, strict=False)
    except ValueError:
        subnet = None
    if subnet is None or "/" not in text:
        raise FormatError("is no subnet", "Write it like 10.10.0.0/16 or fd10::/64.")
    if str(subnet) != text:
        raise FormatError("has host bits or is not in its usual form", f"Write {subnet}.")
    if any(subnet.overlaps(net) for net in _UNUSABLE):
        rule = "contains addresses that cannot be given to a pod"
        raise FormatError(rule, "Use a private range, such as 10.10.0.0/16 or fd10::/64.")


def _outside_block(text: str) -> None:
    try:
        block = ipaddress.ip_network(text, strict=False)
    except ValueError:
        block = None
    if block is None:
        raise FormatError("is no subnet", "Write it like 203.0.113.0/24, 2001:db8::53/128 or 0.0.0.0/0.")
    if str(block) != text:
        raise FormatError("has host bits or is not in its usual form", f"Write {block}.")
    never = [ipaddress.ip_network(net) for net in _parse.NEVER_OUTSIDE]
    if any(block.version == net.version and block.subnet_of(net) for net in never):  # type: ignore[arg-type]
        raise FormatError("has no address of a host outside, so it opens nothing", "Remove the rule.")


def _address(text: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        hint = f"Remove the prefix length: {text.split('/')[0]}." if "/" in text else "Write it like 10.96.0.10."
        raise FormatError("is no address", hint) from None
    if str(address) != text:
        raise FormatError("is not in its usual form", f"Write {address}.")


def _port(text: str) -> None:
    match = re.fullmatch(r"(tcp|udp)/([1-9]\d{0,4})", text)
    if text != "icmp" and not (match and int(match[2]) <= 65535):
        raise FormatError(
            "is no protocol and port", "Write tcp/80, udp/53 or icmp (ports 1 to 65535); omit ports for everything."
        )


def _command(text: str) -> None:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise FormatError(f"is no command line: {error}", "Close the quotes.") from None
    if not words or not words[0].startswith("/"):
        raise FormatError("does not begin with an absolute path", "Write the whole path, like /usr/bin/python3.")
    if "\n" in text:
        raise FormatError("has more than one line", "Write it on one line, or start a script.")


def _environment_name(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise FormatError("is no name of an environment variable", "Use letters, digits and underscores.")
    if text in ("QNET_POD", "QNET_SERVICE", "QNET_HOST"):
        raise FormatError("is set by qnet", "Remove it, or choose another name.")


def _datapath_id(text: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{16}", text) or int(text, 16) == 0:
        raise FormatError("is no datapath id (16 hex digits in lower case, not all 0)", "Correct it, or remove it.")


def _l7(check: Callable[[str], None]) -> Callable[[str], None]:
    def checked(text: str) -> None:
        try:
            check(text)
        except _l7_text.Refused as refused:
            raise FormatError(refused.rule, refused.hint) from None

    return checked


_FORMATS: dict[str, Callable[[str], object]] = {
    **{name: _l7(check) for name, check in _l7_text.FORMATS.items()},
    "dns-label": _dns_label,
    "service-reference": _service_reference,
    "subnet": _subnet,
    "outside-block": _outside_block,
    "address": _address,
    "port": _port,
    "command": _command,
    "environment-name": _environment_name,
    "timestamp": parse_timestamp,
    "datapath-id": _datapath_id,
}
