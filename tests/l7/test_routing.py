# SPDX-License-Identifier: Apache-2.0
"""Which route a request takes, with real requests to a real nginx."""

from __future__ import annotations

from tests.l7.conftest import Scene
from tests.l7.covers import covers


@covers("listener.name", "listener.balancer", "listener.protocol", "listener.port", "route.backends", "route.name")
def test_a_request_reaches_the_service_over_its_service_ip(scene: Scene) -> None:
    scene.configure(scene.route())
    answer = scene.get("/a/b?c=1")
    assert answer.status == 200
    assert answer.pod in scene.over_network()
    assert answer.said["path"] == "/a/b?c=1"


@covers("listener.port")
def test_clients_come_over_ipv6_with_their_address(scene: Scene) -> None:
    scene.configure(scene.route())
    answer = scene.get("/", "--connect-to", f"::[{scene.place.server6}]:{scene.listen}")
    assert answer.said["headers"]["x-real-ip"] == scene.place.client6


@covers("route.hosts", "route.listener")
def test_a_host_name_counts_more_than_a_wildcard_and_that_more_than_none(scene: Scene) -> None:
    texts = {"exact": ["www.example.org"], "wildcard": ["*.example.org"], "none": None}
    routes = [
        scene.route(name, respond={"status": 200, "body": name}, **({"hosts": hosts} if hosts else {}))
        for name, hosts in texts.items()
    ]
    scene.configure(*routes)
    for host, wanted in (("www.example.org", "exact"), ("api.example.org", "wildcard"), ("example.net", "none")):
        assert scene.get(host=host).body == wanted


@covers("route.path", "route.match")
def test_matches_have_the_priorities_of_nginx(scene: Scene) -> None:
    def text(name: str, path: str, match: str) -> dict[str, object]:
        return scene.route(name, path=path, match=match, respond={"status": 200, "body": name})

    scene.configure(
        text("root", "/", "prefix"),
        text("images", "/images/", "prefix"),
        text("first", "/images/raw/", "prefix_first"),
        text("exact", "/images/logo.png", "exact"),
        text("png", r"\.png$", "regex"),
        text("any", r"\.GIF$", "regex_any_case"),
    )
    wanted = {
        "/": "root",
        "/images/a.txt": "images",
        "/images/a.png": "png",  # a regular expression counts more than a prefix
        "/images/a.gif": "any",
        "/images/raw/a.png": "first",  # unless the prefix says it comes first
        "/images/logo.png": "exact",
        "/images/LOGO.png": "png",
    }
    assert {path: scene.get(path).body for path in wanted} == wanted


@covers("route.path")
def test_a_path_without_a_route_is_not_found(scene: Scene) -> None:
    scene.configure(scene.route(path="/only/"))
    assert scene.get("/other").status == 404


@covers("listener.merge_slashes")
def test_slashes_are_merged_unless_the_listener_says_not_to(scene: Scene) -> None:
    deep = scene.route("deep", path="/a/b", match="exact", respond={"status": 200, "body": "deep"})
    scene.configure(deep)
    assert scene.get("/a//b").status == 200
    scene.configure(deep, listener={"merge_slashes": False})
    assert scene.get("/a//b").status == 404


@covers("route.rewrite")
def test_rewrite_rules(scene: Scene) -> None:
    rules = [
        {"pattern": r"^/old/(\d+)$", "to": "/new/$1?id=$1"},
        {"pattern": "^/away$", "to": "https://example.net/there", "then": "redirect"},
        {"pattern": "^/moved$", "to": "/there", "then": "permanent"},
        {"pattern": "^/again$", "to": "/other/x", "then": "search"},
    ]
    scene.configure(
        scene.route(rewrite=rules), scene.route("other", path="/other/", respond={"status": 200, "body": "found"})
    )
    assert scene.get("/old/7").said["path"] == "/new/7?id=7"
    assert scene.get("/away").headers["location"] == "https://example.net/there"
    assert scene.get("/moved").status == 301
    assert scene.get("/again").body == "found"


@covers("route.replace_prefix")
def test_the_prefix_is_replaced_with_the_query_kept(scene: Scene) -> None:
    scene.configure(scene.route(path="/api/v1", replace_prefix="/inner"))
    assert scene.get("/api/v1/users?x=1").said["path"] == "/inner/users?x=1"
    assert scene.get("/api/v1").said["path"] == "/inner/"


@covers("route.redirect")
def test_redirect(scene: Scene) -> None:
    scene.configure(scene.route(redirect={"to": "https://example.net$request_uri", "status": 308}))
    answer = scene.get("/a?b=c")
    assert (answer.status, answer.headers["location"]) == (308, "https://example.net/a?b=c")


@covers("listener.redirect_to_https")
def test_everything_is_sent_to_https(scene: Scene) -> None:
    scene.configure(listener={"redirect_to_https": True})
    assert scene.get("/a").headers["location"] == "https://www.example.org/a"


@covers("route.respond")
def test_a_fixed_answer(scene: Scene) -> None:
    body = 'a "quoted" \\ text;\n{with} lines\n'
    scene.configure(scene.route(respond={"status": 418, "body": body, "media_type": "text/csv"}))
    answer = scene.get()
    assert (answer.status, answer.body, answer.headers["content-type"]) == (418, body, "text/csv")


@covers("route.methods")
def test_other_methods_are_refused(scene: Scene) -> None:
    scene.configure(scene.route(methods=["GET", "POST"]))
    statuses = [scene.get("/", "--request", method).status for method in ("GET", "POST", "DELETE")]
    assert statuses == [200, 200, 405]


@covers("route.split_by", "route.backends")
def test_requests_are_split_by_weight(scene: Scene) -> None:
    both = [scene.backend("fop/image", weight=1), scene.backend("fop/agents", weight=3)]
    scene.configure(scene.route(backends=both, split_by="$arg_user"))
    answers = {user: scene.get(f"/?user={user}").pod for user in range(80)}
    image = sum(pod in scene.over_network() for pod in answers.values())
    assert 8 <= image <= 34  # a quarter of 80, give or take three standard deviations
    mine = scene.over_network()
    assert all((scene.get(f"/?user={user}").pod in mine) == (answers[user] in mine) for user in range(10))


@covers("route.backends")
def test_a_canary_takes_the_requests_that_ask_for_it(scene: Scene) -> None:
    canary = [
        scene.backend("fop/image"),
        scene.backend("fop/agents", when={"header": "X-Canary", "value": "yes"}),
        scene.backend("audit/audit", when={"cookie": "canary"}),
    ]
    scene.configure(scene.route(backends=canary))
    assert scene.get().pod in scene.over_network()
    assert scene.get("/", "--header", "X-Canary: no").pod in scene.over_network()
    assert scene.get("/", "--header", "X-Canary: yes").pod in scene.over_network("fop/agents")
    assert scene.get("/", "--cookie", "canary=1").pod in scene.over_network("audit/audit")
