"""A request that arrives in any pieces is complete with its last byte, and not before."""

import pytest

from flaskapp.incoming import Incoming

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
REQUESTS = [
    HEAD + b"\r\n",
    HEAD + b"content-LENGTH:\t 3 \r\n\r\nabc",
    HEAD + b"Content-Length: 0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b'Transfer-Encoding: chunked\r\n\r\n3\r\na\r\n\r\nA;x="y"\r\n0123456789\r\n00\r\nX: y\r\n\r\n',
]


@pytest.mark.parametrize("content", REQUESTS)
def test_whole_with_the_last_byte(content: bytes) -> None:
    incoming = Incoming(100)
    for byte in content:
        assert not incoming.whole()
        incoming.data.append(byte)
    assert incoming.whole()
    assert not incoming.oversized


@pytest.mark.parametrize("content", REQUESTS)
def test_whole_with_more_behind_it(content: bytes) -> None:
    incoming = Incoming(100)
    incoming.data += content + b"GET"
    assert incoming.whole()


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 1_0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x5\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 9000,
    ],
)
def test_what_is_malformed_is_not_waited_for(content: bytes) -> None:
    incoming = Incoming(100)
    incoming.data += HEAD + content
    assert incoming.whole()


@pytest.mark.parametrize(
    "content", [b"Content-Length: 101\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n62\r\n" + b"a" * 98]
)
def test_a_body_over_the_limit_is_not_waited_for(content: bytes) -> None:
    incoming = Incoming(100)
    incoming.data += HEAD + content
    assert incoming.whole()
    assert incoming.oversized
