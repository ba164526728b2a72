"""Where the files of a source are published, as data: what `chimed fetch` downloads, and what it cannot.

Each source says so itself, as its `origin`. Addresses are pinned to a commit or revision where upstream has one that is
known to hold the file, so that a file does not change under a corpus. A digest stands where the bytes at that address
are known; for large files on the Hub the server names it when it is asked.
"""

from dataclasses import dataclass
from urllib.parse import quote

HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Remote:
    """One file as upstream publishes it.

    url: http or https; an address below `HUB` is asked of HF_ENDPOINT where that is set.
    path: where the file goes below RAW/<source>/, with slashes.  sha256: 64 hexadecimal digits, or "" when not known.
    """

    url: str
    path: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """The files of a source that can be fetched, and one sentence on where to get what cannot."""

    files: tuple[Remote, ...] = ()
    where: str = ""


def hub(repo: str, revision: str, *files: str, folder: str = "", sha256: str = "") -> tuple[Remote, ...]:
    """Files of a dataset repository of the Hugging Face Hub, below `folder`; `sha256` is that of a file named alone.

    >>> hub("ceval/ceval-exam", "main", "ceval-exam.zip")[0].url
    'https://huggingface.co/datasets/ceval/ceval-exam/resolve/main/ceval-exam.zip'
    """
    base = f"{HUB}/datasets/{repo}/resolve/{quote(revision, safe='')}/"
    return tuple(Remote(base + quote(file), folder + file, sha256) for file in files)


def github(repo: str, commit: str, *files: str, sha256: str = "") -> tuple[Remote, ...]:
    """Files of a GitHub repository at a commit or branch; `sha256` is that of a file named alone.

    >>> github("jind11/MedQA", "master", "README.md")[0].url
    'https://raw.githubusercontent.com/jind11/MedQA/master/README.md'
    """
    base = f"https://raw.githubusercontent.com/{repo}/{commit}/"
    return tuple(Remote(base + quote(file), file, sha256) for file in files)
