"""TLS to the database: `verify-full` accepts the right certificate for the right name, and nothing else."""

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flaskapp import migrate
from flaskapp.database import command_engine
from flaskapp.settings import Settings
from tests.postgres import Database
from tests.service.conftest import Server
from tests.service.proxy import Proxy

Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def certificate(name: str, issuer: Signed | None = None) -> Signed:
    """A certificate for a host, or an authority's own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def pem(signed: Signed) -> bytes:
    return signed[0].public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def secured(database: Database, tmp_path: Path) -> Iterator[tuple[Database, Path, Path]]:
    """The database behind TLS as `localhost`, its authority's certificate, and another authority's."""
    authority = certificate("authority")
    host = certificate("localhost", authority)
    form = serialization.PrivateFormat.PKCS8
    key = host[1].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    both, good, other = (tmp_path / name for name in ("server.pem", "ca.crt", "other.crt"))
    both.write_bytes(pem(host) + key)
    good.write_bytes(pem(authority))
    other.write_bytes(pem(certificate("other")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    proxy = Proxy(database.server.port, context)
    yield Database(database.server, database.name, proxy.port), good, other
    proxy.close()


def test_verify_full(secured: tuple[Database, Path, Path], serve: Callable[..., Server]) -> None:
    database, good, other = secured
    right = {
        **database.environment,
        "DB_HOST": "localhost",
        "DB_SSLMODE": "verify-full",
        "DB_SSLROOTCERT": str(good),
    }
    migrate.check(command_engine(Settings.from_environment(right)))
    server = serve({**right, "WEB_CONCURRENCY": "2"})  # forked after loading: no connection may be shared
    server.wait()
    assert {server.get("/api/v1/services").status_code for _ in range(20)} == {200}
    for wrong, reason in (
        ({"DB_SSLROOTCERT": str(other)}, "certificate verify failed"),
        ({"DB_HOST": "127.0.0.1"}, 'does not match host name "127.0.0.1"'),
    ):
        engine = command_engine(Settings.from_environment({**right, **wrong}))
        with pytest.raises(migrate.SchemaError, match=reason):
            migrate.wait(engine, 0, print)
