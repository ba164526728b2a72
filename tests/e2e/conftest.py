"""The command line as a process, and a raw folder large enough for worker processes to be used."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Contents = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="session")
def chimed() -> Run:
    """Runs `chimed ARGUMENTS…` and gives the finished process."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chimed.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture(scope="session")
def contents() -> Contents:
    """Gives sha256 by name of every file of a build, without work and measurements."""
    return _contents


def _contents(out: Path) -> dict[str, str]:
    """sha256 of every file of a build, without its work folder; of manifests without what was measured."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file() and ".work" not in p.parts):
        data = path.read_bytes()
        if path.name == "manifest.json":
            manifest = json.loads(data)
            for measured in ("seconds", "mb_per_second"):
                manifest.pop(measured)
            data = json.dumps(manifest).encode()
        found[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


_SUBJECTS = ["高血压", "糖尿病", "哮喘", "胃炎", "肺炎", "痛风", "贫血", "湿疹", "偏头痛", "肾结石", "肝炎", "甲亢"]
_SUBJECTS += ["失眠", "鼻炎", "关节炎", "胆囊炎"]
_CLAUSES = [
    "应当先到医院做{a}的检查", "平时少吃与{a}有关的食物", "{a}的病人要按时复诊", "建议监测{a}的指标变化",
    "必要时在医生指导下用药治疗{a}", "多休息，避免劳累加重{a}", "家里有{a}病史的人更要留意", "{a}一般不会传染给家人",
    "孕妇患{a}时用药要更谨慎", "出现{a}的症状超过两周应当就诊", "控制体重对{a}有帮助", "{a}与睡眠不足也有关系",
]  # fmt: skip


def _sentence(rng: random.Random) -> str:
    clauses = (rng.choice(_CLAUSES).format(a=rng.choice(_SUBJECTS)) for _ in range(rng.randint(6, 14)))
    return "，".join(f"{clause}{rng.randint(1, 999)}次" for clause in clauses) + "。"


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipe.yaml` and `raw/` of 12 MB: dialogues, passages, facts, repeats, leaks and broken rows."""
    folder = tmp_path_factory.mktemp("large")
    rng = random.Random(7)
    raw = folder / "raw"
    answers = [_sentence(rng) for _ in range(18_000)]
    questions = [f"{rng.choice(_SUBJECTS)}患者第{n}次复诊要注意什么问题，饮食上怎么安排？" for n in range(18_000)]
    for name, step in (("talks", 1), ("again", 9)):
        (raw / name).mkdir(parents=True)
        for part in range(3):
            with (raw / name / f"train-{part}.jsonl").open("w", encoding="utf-8") as file:
                for n in range(part, 18_000, 3 * step):
                    reply = answers[n] + ("谢谢。" if name == "again" else "")
                    file.write(json.dumps({"q": questions[n], "a": reply}, ensure_ascii=False) + "\n")
                file.write('{"q": "坏行\n')
    held = [{"q": questions[n], "a": answers[n]} for n in range(0, 18_000, 500)]
    (raw / "talks" / "test.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in held))
    (raw / "books").mkdir()
    (raw / "books" / "book.txt").write_text("\n\n".join(_sentence(rng) for _ in range(2_000)), encoding="gb18030")
    (raw / "graph").mkdir()
    edges = [f"{a}\t症状\t{b}样不适{n}" for a in _SUBJECTS for b in _SUBJECTS for n in range(3)]
    (raw / "graph" / "edges.tsv").write_text("\n".join(["h\tr\tt", *edges]), encoding="utf-8")
    (folder / "recipe.yaml").write_text(
        """
seed: 1
sources:
  - {name: talks, shape: dialogue, files: {"train*": train, "test*": test}, columns: {question: q, answer: a}}
  - {name: again, shape: dialogue, files: {"*": train}, columns: {question: q, answer: a}, share: 0.5}
  - {name: books, shape: passage, files: {"*": train}, text: paragraphs}
  - {name: graph, shape: fact, files: {"*": train}, columns: {head: h, relation: r, tail: t}, cap: 10}
""",
        encoding="utf-8",
    )
    return folder


@dataclass(frozen=True)
class Bucket:
    """A bucket named `bucket` on an S3 server of this machine, and the environment of who uses it."""

    client: Any
    environment: dict[str, str]

    def keys(self, prefix: str) -> dict[str, Any]:
        """When each object was written."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return {entry["Key"]: entry["LastModified"] for page in pages for entry in page.get("Contents", ())}

    def send(self, folder: Path, prefix: str) -> None:
        """Every file of a folder as an object."""
        for path in (path for path in folder.rglob("*") if path.is_file()):
            self.client.upload_file(str(path), "bucket", f"{prefix}{path.relative_to(folder).as_posix()}")

    def fetch(self, prefix: str, to: Path) -> Path:
        """Every object as a file, but for those of a work folder; the folder."""
        for key in (key for key in self.keys(prefix) if "/.work/" not in key):
            path = to / key.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.client.get_object(Bucket="bucket", Key=key)["Body"].read())
        return to


@pytest.fixture(scope="session")
def s3() -> Iterator[Bucket]:
    """A bucket of a server that lives as long as the tests."""
    boto3 = pytest.importorskip("boto3", reason="needs the dev extra: pip install -e '.[dev]'")
    server = pytest.importorskip("moto.server", reason="needs the dev extra: pip install -e '.[dev]'")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        nobody = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull}
        nobody |= {"AWS_EC2_METADATA_DISABLED": "true"}
        given = {**keys, **nobody, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        session = boto3.Session("key", "secret", region_name="us-east-1")
        client = session.client("s3", endpoint_url=given["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="bucket")
        yield Bucket(client, {**os.environ, **given})
    finally:
        running.stop()
