import pytest

from trimodal.batch import Modality
from trimodal.errors import ConfigError
from trimodal_serving.errors import ServingError
from trimodal_serving.hosts import MAX_URL, Hosts, Target
from trimodal_serving.media import LinkedMedium

HOSTS = Hosts(
    [
        "images.example.org",
        "*.example.net",
        "Named.example.org:8443",
        "10.0.0.7",
        "127.0.0.1:9000",
        "[2001:DB8::1]:9000",
        "[::1]",
    ]
)


def target(url: str) -> Target:
    return HOSTS.target(LinkedMedium(Modality.VISION, url))


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path", "authority"),
    [
        ("https://images.example.org/a.png", "https", "images.example.org", 443, "/a.png", None),
        ("HTTP://Images.Example.ORG", "http", "images.example.org", 80, "/", None),
        ("https://images.example.org:443?x=1", "https", "images.example.org", 443, "/?x=1", None),
        (
            "https://images.example.org:80/a@b:c?d=%20/../e#part",
            "https",
            "images.example.org",
            80,
            "/a@b:c?d=%20/../e",
            "images.example.org:80",
        ),
        ("https://a.b.example.net/", "https", "a.b.example.net", 443, "/", None),
        (
            "https://named.example.org:8443/",
            "https",
            "named.example.org",
            8443,
            "/",
            "named.example.org:8443",
        ),
        ("http://10.0.0.7/a", "http", "10.0.0.7", 80, "/a", None),
        ("http://127.0.0.1:9000/a", "http", "127.0.0.1", 9000, "/a", "127.0.0.1:9000"),
        ("http://[2001:db8:0::1]:9000/", "http", "2001:db8::1", 9000, "/", "[2001:db8::1]:9000"),
        ("https://[::1]/", "https", "::1", 443, "/", "[::1]"),
    ],
)
def test_what_is_named_is_let_through(
    url: str, scheme: str, host: str, port: int, path: str, authority: str | None
) -> None:
    found = target(url)
    assert (found.scheme, found.host, found.port, found.path) == (scheme, host, port, path)
    assert found.authority == (authority or host)
    assert found.is_address == (not host.endswith(("org", "net")))
    assert found.kind == "image"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://images.example.org.evil.org/",
        "https://evil.org/images.example.org",
        "https://evil.org#images.example.org",
        "https://evil.org?images.example.org",
        "https://ximages.example.org/",
        "https://a.images.example.org/",
        "https://example.net/",
        "https://xexample.net/",
        "https://images.example.org:8443/",
        "https://images.example.org:22/",
        "https://images.example.org:0/",
        "https://images.example.org:99999/",
        "https://named.example.org/",
        "http://127.0.0.1/",
        "http://127.0.0.1:80/",
        "http://10.0.0.8/",
        "http://[::ffff:10.0.0.7]/",
        "http://[::7f00:1]:9000/",
        "http://[2001:db8::1]/",
        "http://localhost:9000/",
    ],
)
def test_what_is_not_named_is_refused(url: str) -> None:
    with pytest.raises(ServingError, match=r"image is at .+ port \d+, from which") as caught:
        target(url)
    assert (caught.value.status, caught.value.code) == (400, "url_not_allowed")


@pytest.mark.parametrize(
    "url",
    [
        "https://user@images.example.org/",
        "https://user:secret@images.example.org/",
        "https://evil.org\\@images.example.org/",
        "https://images.example.org\\@evil.org/",
        "https://images.example.org:@evil.org/",
        "https:\\\\images.example.org/",
        "https:images.example.org/",
        "https:/images.example.org/",
        "https:///images.example.org/",
        "https://images.example.org./",
        "https://.images.example.org/",
        "https://images..example.org/",
        "https://images.example.org:/",
        "https://images.example.org:+80/",
        "https://images.example.org:８０/",
        "https://images.example.org/a b",
        "https://images.example.org/a\r\nhost: evil.org",
        "https://images.example.org/\0",
        "https://images.example.org/ä",
        "https://images。example.org/",
        "https://ⓘmages.example.org/",
        "https://images.example.org%2f@evil.org/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1.:9000/",
        "https://[::1%25eth0]/",
        "https://[::1]x/",
        "https://[127.0.0.1]:9000/",
        "https://[]/",
        "https://",
        "ftp://images.example.org/",
        "https://images.example.org/" + "a" * MAX_URL,
        "https://" + "a." * 200 + "example.net/",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(ServingError, match="must be at a plain address") as caught:
        target(url)
    assert (caught.value.status, caught.value.code) == (400, "url_not_allowed")
    assert "evil" not in caught.value.message


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.",
        "*.org",
        "*.10.0.0.7",
        "images.*.org",
        "https://images.example.org",
        "images.example.org/",
        "images.example.org:0",
        "images.example.org:65536",
        "images.example.org:",
        "images.example.org.",
        "2130706433",
        "127.1",
        "::1",
        "10.0.0.0/8",
        "user@images.example.org",
        " images.example.org",
    ],
)
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="fetch from"):
        Hosts([entry])


def test_without_entries_nothing_is_allowed() -> None:
    with pytest.raises(ServingError, match="does not fetch"):
        Hosts([]).target(LinkedMedium(Modality.SPEECH, "https://images.example.org/"))
