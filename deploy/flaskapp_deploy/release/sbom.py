"""What is installed in an image: the distribution's packages and Python's, as a CycloneDX document."""

from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import canonicalize_name

# Where an image keeps Python packages: the base's own, and the application's.
PYTHON_FOLDERS = ("usr/local/lib/python3*/site-packages", "usr/lib/python3/dist-packages", "deps")


def document(root: Path, name: str, version: str, digest: str) -> str:
    """Return the SBOM (CycloneDX, JSON) of an image whose files are in `root`."""
    bom = Bom(components=[*debian(root), *python(root)])
    purl = PackageURL("oci", name=name, version=digest)
    image = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref=purl.to_string(), purl=purl)
    bom.metadata.component = image
    bom.register_dependency(image, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=2)


def debian(root: Path) -> Iterator[Component]:
    """Packages that dpkg knows; those of images without a package manager in the folder that distroless uses."""
    path = root / "etc/os-release"
    lines = [line.replace('"', "").split("=", 1) for line in path.read_text().splitlines()] if path.is_file() else []
    release = {"ID": "linux", "VERSION_ID": "0"} | {line[0]: line[-1] for line in lines}
    for path in [root / "var/lib/dpkg/status", *sorted((root / "var/lib/dpkg/status.d").glob("*"))]:
        for stanza in path.read_text(errors="replace").split("\n\n") if path.is_file() else []:
            fields = HeaderParser().parsestr(stanza)
            if not fields["Package"] or "not-installed" in fields.get("Status", ""):
                continue
            qualifiers = {"arch": fields["Architecture"], "distro": f"{release['ID']}-{release['VERSION_ID']}"}
            yield _component(PackageURL("deb", release["ID"], fields["Package"], fields["Version"], qualifiers))


def python(root: Path) -> Iterator[Component]:
    """Packages with metadata, each once."""
    folders = [str(path) for pattern in PYTHON_FOLDERS for path in sorted(root.glob(pattern))]
    packages = {(canonicalize_name(item.name), item.version): item for item in distributions(path=folders)}
    for (name, version), item in sorted(packages.items()):
        expression = item.metadata.json.get("license_expression")
        yield _component(PackageURL("pypi", None, name, version), str(expression or ""))


def _component(purl: PackageURL, license: str = "") -> Component:
    return Component(
        name=purl.name,
        version=purl.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=[LicenseExpression(license)] if license else None,
    )
