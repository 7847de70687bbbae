"""Certificates. Everyone has a client certificate; there are no static tokens."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flaskapp_deploy.shell import write_atomic

AUTHORITY_LIFE, LEAF_LIFE, RENEW_BEFORE = timedelta(days=3650), timedelta(days=365), timedelta(days=30)
PEM = serialization.Encoding.PEM


class Authority:
    """A certificate authority kept in `directory` as `name`.crt and `name`.key."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.certificate_path, self.key_path = directory / f"{name}.crt", directory / f"{name}.key"
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flaskapp {name}")])
        if not self.certificate_path.exists():
            constraints = x509.BasicConstraints(ca=True, path_length=0)
            self._sign(self.certificate_path, self.subject, AUTHORITY_LIFE, constraints)

    def issue(
        self, name: str, common_name: str, groups: Sequence[str] = (), addresses: Sequence[IPv4Address | str] = ()
    ) -> tuple[Path, Path]:
        """Return paths of a certificate and its key; made anew when absent, changed or within 30 days of its end.

        With `addresses` (IPv4 or DNS names) it serves under them as well.
        """
        path = self.directory / f"{name}.crt"
        organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        extensions: list[x509.ExtensionType] = [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]
        if addresses:
            names = [x509.IPAddress(a) if isinstance(a, IPv4Address) else x509.DNSName(a) for a in addresses]
            usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            extensions = [x509.ExtendedKeyUsage(usages), x509.SubjectAlternativeName(names)]
        if not self._is_current(path, subject, extensions):
            self._sign(path, subject, LEAF_LIFE, *extensions)
        return path, path.with_suffix(".key")

    def _sign(self, path: Path, subject: x509.Name, life: timedelta, *extensions: x509.ExtensionType) -> None:
        now, key = datetime.now(UTC), _private_key(path.with_suffix(".key"))
        builder = x509.CertificateBuilder(self.subject, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + life)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        certificate = builder.sign(_private_key(self.key_path), hashes.SHA256())
        write_atomic(path, certificate.public_bytes(PEM), 0o600)

    def _is_current(self, path: Path, subject: x509.Name, extensions: Sequence[x509.ExtensionType]) -> bool:
        """Return whether a certificate is there, is what it should be, and does not end soon."""
        if not path.exists():
            return False
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        lasts = certificate.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE
        content = (certificate.issuer, certificate.subject, [one.value for one in certificate.extensions])
        return lasts and content == (self.subject, subject, list(extensions))


def _private_key(path: Path) -> EllipticCurvePrivateKey:
    """Return the private key in a file, made where there is none."""
    if not path.exists():
        key = generate_private_key(SECP256R1())
        encoded = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_atomic(path, encoded, 0o600)
    loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(loaded, EllipticCurvePrivateKey)
    return loaded
