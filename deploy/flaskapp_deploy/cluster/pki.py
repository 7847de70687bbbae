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
PEM = serialization.Encoding.PEM


class Authority:
    """A certificate authority kept in `directory` as `name`.crt and `name`.key."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.certificate_path = directory, directory / f"{name}.crt"
        key_path = directory / f"{name}.key"
        if not self.certificate_path.exists():
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flaskapp {name}")])
            key = _write_key(key_path)
            builder = _builder(subject, subject, key, AUTHORITY_LIFE)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            _write_certificate(self.certificate_path, builder, key)
        self.certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
        loaded = serialization.load_pem_private_key(key_path.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self.key = loaded

    def issue(
        self, name: str, common_name: str, groups: Sequence[str] = (), addresses: Sequence[IPv4Address | str] = ()
    ) -> tuple[Path, Path]:
        """Return paths of a certificate and its key; made anew when absent, changed or within 30 days of its end.

        With `addresses` (IPv4 or DNS names) it serves under them as well.
        """
        certificate_path, key_path = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        names = x509.SubjectAlternativeName(
            [x509.IPAddress(a) if isinstance(a, IPv4Address) else x509.DNSName(a) for a in addresses]
        )
        if not _is_current(certificate_path, subject, names, self.certificate):
            usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if addresses else [])]
            builder = _builder(subject, self.certificate.subject, _write_key(key_path), LEAF_LIFE)
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            if addresses:
                builder = builder.add_extension(names, critical=False)
            _write_certificate(certificate_path, builder, self.key)
        return certificate_path, key_path


def key_pair(directory: Path, name: str) -> tuple[Path, Path]:
    """Return paths of a private and a public key, for service account tokens."""
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    if not public.exists():
        key = _write_key(private).public_key()
        write_atomic(public, key.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo), 0o600)
    return private, public


def write_kubeconfig(
    path: Path, server: str, authority: Authority, credentials: tuple[Path, Path], cluster: str, namespace: str = ""
) -> Path:
    """Write a kubeconfig that holds everything it needs, so that it can be copied elsewhere."""
    own, certificate, key = (
        base64.b64encode(part.read_bytes()).decode() for part in (authority.certificate_path, *credentials)
    )
    context = {"cluster": cluster, "user": cluster} | ({"namespace": namespace} if namespace else {})
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": own}}],
        "users": [{"name": cluster, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": cluster, "context": context}],
        "current-context": cluster,
    }
    write_atomic(path, yaml.safe_dump(document, sort_keys=False), 0o600)
    return path


def _write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    content = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomic(path, content, 0o600)
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + life)
    )


def _write_certificate(path: Path, builder: x509.CertificateBuilder, issuer_key: ec.EllipticCurvePrivateKey) -> None:
    write_atomic(path, builder.sign(issuer_key, hashes.SHA256()).public_bytes(PEM), 0o600)


def _is_current(path: Path, subject: x509.Name, names: x509.SubjectAlternativeName, issuer: x509.Certificate) -> bool:
    """Return whether a certificate is there, is what it should be, and does not end soon."""
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    try:
        served = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        served = x509.SubjectAlternativeName([])
    current = certificate.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE
    return current and (certificate.subject, served, certificate.issuer) == (subject, names, issuer.subject)
