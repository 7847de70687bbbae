"""Certificates and kubeconfig files. Everyone has a client certificate; there are no static tokens."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flaskapp_deploy.shell import write_atomic

AUTHORITY_LIFE, LEAF_LIFE, RENEW_BEFORE = timedelta(days=3650), timedelta(days=365), timedelta(days=30)


class Authority:
    """A certificate authority kept in `directory` as `name`.crt and `name`.key."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.certificate_path, self.key_path = directory / f"{name}.crt", directory / f"{name}.key"
        if not self.certificate_path.exists():
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            key = _new_key()
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flaskapp {name}")])
            builder = _builder(subject, subject, key.public_key(), AUTHORITY_LIFE)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            write_atomic(self.key_path, _pem(key), 0o600)
            write_atomic(self.certificate_path, _pem(builder.sign(key, hashes.SHA256())), 0o600)
        self.certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
        self.key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)

    def issue(
        self, name: str, common_name: str, groups: Sequence[str] = (), addresses: Sequence[IPv4Address | str] = ()
    ) -> tuple[Path, Path]:
        """Return paths of a certificate and its key; made anew when absent, changed or within 30 days of its end.

        With `addresses` (IPv4 or DNS names) it serves under them as well.
        """
        certificate_path, key_path = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        subject = x509.Name(
            [
                *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )
        names = x509.SubjectAlternativeName(
            [x509.IPAddress(a) if isinstance(a, IPv4Address) else x509.DNSName(a) for a in addresses]
        )
        if not _still_good(certificate_path, subject, names, self.certificate):
            usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if addresses else [])]
            key = _new_key()
            builder = _builder(subject, self.certificate.subject, key.public_key(), LEAF_LIFE)
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            if addresses:
                builder = builder.add_extension(names, critical=False)
            assert isinstance(self.key, ec.EllipticCurvePrivateKey)
            write_atomic(key_path, _pem(key), 0o600)
            write_atomic(certificate_path, _pem(builder.sign(self.key, hashes.SHA256())), 0o600)
        return certificate_path, key_path


def key_pair(directory: Path, name: str) -> tuple[Path, Path]:
    """Return paths of a private and a public key, for service account tokens."""
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    if not public.exists():
        key = _new_key()
        public_format = serialization.PublicFormat.SubjectPublicKeyInfo
        write_atomic(private, _pem(key), 0o600)
        write_atomic(public, key.public_key().public_bytes(serialization.Encoding.PEM, public_format), 0o600)
    return private, public


def write_kubeconfig(
    path: Path, server: str, authority: Authority, credentials: tuple[Path, Path], cluster: str, namespace: str = ""
) -> Path:
    """Write a kubeconfig that holds everything it needs, so that it can be copied elsewhere."""
    certificate, key = (base64.b64encode(part.read_bytes()).decode() for part in credentials)
    context = {"cluster": cluster, "user": cluster} | ({"namespace": namespace} if namespace else {})
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": server,
                    "certificate-authority-data": base64.b64encode(authority.certificate_path.read_bytes()).decode(),
                },
            }
        ],
        "users": [{"name": cluster, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": cluster, "context": context}],
        "current-context": cluster,
    }
    write_atomic(path, yaml.safe_dump(document, sort_keys=False).encode(), 0o600)
    return path


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + life)
    )


def _still_good(path: Path, subject: x509.Name, names: x509.SubjectAlternativeName, issuer: x509.Certificate) -> bool:
    if not path.exists():
        return False
    known = x509.load_pem_x509_certificate(path.read_bytes())
    try:
        served = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        served = x509.SubjectAlternativeName([])
    current = known.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE
    return current and known.subject == subject and served == names and known.issuer == issuer.subject


def _pem(value: ec.EllipticCurvePrivateKey | x509.Certificate) -> bytes:
    if isinstance(value, x509.Certificate):
        return value.public_bytes(serialization.Encoding.PEM)
    return value.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
