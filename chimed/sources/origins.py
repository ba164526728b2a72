"""Where the files of each source are published, as data: what `chimed fetch` downloads, and what it cannot.

Addresses are pinned to a commit or revision where upstream has one that is known to hold the file, so that a file does
not change under a corpus. A digest stands where the bytes at that address are known; for large files on the Hub the
server names it when it is asked.
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


_HUATUO = ("train_datasets.jsonl", "validation_datasets.jsonl", "test_datasets.jsonl")
_TOYHOM = (
    "Andriatria_男科/男科5-13000.csv",
    "OAGD_妇产科/妇产科6-28000.csv",
    "Oncology_肿瘤科/肿瘤科5-10000.csv",
    "Pediatric_儿科/儿科5-14000.csv",
    "Surgical_外科/外科5-14000.csv",
)
_CLASSICS = "https://github.com/xiaopangxia/TCM-Ancient-Books/archive/refs/heads/master.zip"

ORIGINS: dict[str, Origin] = {
    "39health-kg": Origin(
        where="Nobody publishes the triples themselves: QASystemOnMedicalGraph has the same graph as a table of "
        "diseases, which `chimed fetch disease-kg` gets; build triples of your own with its build_graph.py",
    ),
    "alpaca-gpt4-zh": Origin(
        github("Instruction-Tuning-with-GPT-4/GPT-4-LLM", "main", "data/alpaca_gpt4_data_zh.json"),
    ),
    "bentsao": Origin(
        (
            *github(
                "SCIR-HI/Huatuo-Llama-Med-Chinese",
                "bb4fc5e86ae39d466402f6d52e82030f587d5963",
                "data-literature/liver_cancer.json",
                sha256="4f63bccb513b12c965faf4ef14ac4c07afc9ac20b64f546476a5de89f3d5adf4",
            ),
            *github("SCIR-HI/Huatuo-Llama-Med-Chinese", "1ab34f707531e1262a4743d0d225b350e690760d", "data/infer.json"),
        ),
        where="The 8,658 instructions, data/llama_data.json, are linked from the README of "
        "https://github.com/SCIR-HI/Huatuo-Llama-Med-Chinese",
    ),
    "ceval": Origin(
        hub(
            "ceval/ceval-exam",
            "3923b519fd180e689d0961bf3a032ece929742f3",
            "ceval-exam.zip",
            sha256="68786deeea68ff089c56563ee48fab8160da857b77b913437bb504d681fd8e20",
        ),
    ),
    "chimed-released": Origin(
        hub("williamliu/ChiMed", "20f291da49b68fe6579fa3383ac3634f7b74d11f", "cpt.txt", "sft.jsonl", "dpo.json"),
    ),
    "cmb": Origin(
        hub(
            "FreedomIntelligence/CMB",
            "main",
            "CMB-Exam/CMB-train/CMB-train-merge.json",
            "CMB-Exam/CMB-val/CMB-val-merge.json",
            "CMB-Exam/CMB-test/CMB-test-choice-question-merge.json",
            "CMB-Clin/CMB-Clin-qa.json",
        ),
    ),
    "cmd": Origin(
        where="The paper names no address; ask the authors of Qilin-Med (https://github.com/williamliujl/Qilin-Med), "
        "or build without it: `chimed fetch toyhom` gets rows of the same kind",
    ),
    "cmedqa2": Origin(
        where="Download question.zip and answer.zip from https://github.com/zhangsheng93/cMedQA2 and join them on "
        "question_id into a table with the columns question and answer: a build cannot read them apart",
    ),
    "cmexam": Origin(
        github(
            "williamliujl/CMExam",
            "fadb22c89beb1b7115dc36460ba792eb96b7b972",
            "data/train.csv",
            "data/val.csv",
            "data/test_with_annotations.csv",
        ),
    ),
    "cmmlu": Origin(hub("haonan-li/cmmlu", "main", "cmmlu_v1_0_1.zip")),
    "cmtmedqa": Origin(
        (
            *hub("Suprit/CMtMedQA", "20ad72ce62bfa4ffb7a6f79740b6e42405fd195d", "CMtMedQA.json"),
            *github(
                "SupritYoung/Zhongjing",
                "478000e10d6c9633065773b4712fabd13d2fcfbe",
                "data/CMtMedQA_test.json",
                sha256="089924f89c5e533e5fecd47124762945f4e602255da2a99212f1d0a4a21b22c3",
            ),
        ),
    ),
    "cpubmed-kg": Origin(
        where="Download CPubMed-KG by hand from https://cpubmed.openi.org.cn/graph/wiki, which asks to "
        "accept its terms",
    ),
    "disease-kg": Origin(
        github("zhihao-chen/QASystemOnMedicalGraph", "4ab098f3c65577e15c579b97c088c1db99ebc6ae", "data/disease.csv"),
    ),
    "dpo-zh-demo": Origin(
        (
            *github("hiyouga/LLaMA-Factory", "3a0f5b4fe72a5e02040081c47274f3ad67d5e668", "data/dpo_zh_demo.json"),
            *github(
                "hiyouga/LLaMA-Factory",
                "569ed592b61da573326cd405f932a2cb6fff9b30",
                "data/oaast_rm_zh.json",
                sha256="02c940343367d90c2d1ec6df4992466aee429eadcf103af61e10da7f3261f9e6",
            ),
        ),
    ),
    "explaincpe": Origin(
        (
            *github(
                "HITsz-TMG/ExplainCPE",
                "44337670d7f1dd0f7c2b76c82ca6dfffd1405759",
                "dataset/dev.json",
                sha256="dac6969a86f41e8eaed9d41814d34912a1594efa8679ba314b905c106d5963d8",
            ),
            *github(
                "HITsz-TMG/ExplainCPE",
                "44337670d7f1dd0f7c2b76c82ca6dfffd1405759",
                "dataset/test.json",
                sha256="956bfe8504c454b8b56321a3582d36324ee74093a515b92c9582b49117d375a6",
            ),
        ),
        where="The training items, train.json, lie in the folder dataset of https://github.com/HITsz-TMG/ExplainCPE",
    ),
    "guidelines": Origin(
        where="The National Health Commission publishes each guideline on a page of its own at https://www.nhc.gov.cn: "
        "save the documents you need as text, or as JSON objects `title, url, year, content` in a folder guides",
    ),
    "hc3-chinese": Origin(hub("Hello-SimpleAI/HC3-Chinese", "main", "all.jsonl")),
    "huatuo26m": Origin(
        (
            *hub(
                "FreedomIntelligence/huatuo_encyclopedia_qa",
                "ad084bece670ddbecf32707cbbe3362824d3bed8",
                *_HUATUO,
                folder="encyclopedia/",
            ),
            *hub(
                "FreedomIntelligence/huatuo_knowledge_graph_qa",
                "b01fb013d5595abe18c97408dd2fc939e4f7ea3f",
                *_HUATUO,
                folder="knowledge_graph/",
            ),
            *hub("FreedomIntelligence/Huatuo26M-Lite", "main", "format_data.jsonl", folder="lite/"),
            *github(
                "SupritYoung/Zhongjing",
                "92bdb5439df1d148cbda9be42950e99b4cd09a3b",
                "data/huatuo26M_test.json",
                sha256="b023079b97ab6f87e3fed018150ec8728dde12ea80117c91139356f15b47835a",
            ),
        ),
    ),
    "huatuogpt": Origin(
        (
            *hub(
                "FreedomIntelligence/HuatuoGPT-sft-data-v1",
                "main",
                "HuatuoGPT_sft_data_v1.jsonl",
            ),
            *hub(
                "FreedomIntelligence/HuatuoGPT2-SFT-GPT4-140K",
                "4077ffaeb123e49b8b8a0283f42957a5570a52ce",
                "HuatuoGPT2-GPT4-SFT-140K.json",
            ),
            *github(
                "FreedomIntelligence/HuatuoGPT", "827c44abf4b0f984af0e4672633df09c710e63bb", "eval/KUAKE-QIC_100.json"
            ),
            *github(
                "FreedomIntelligence/HuatuoGPT", "1412a5d250f411b5739576fda6e3683ba99ebcd1", "eval/Med-dialog_100.json"
            ),
        ),
    ),
    "instruct-chat": Origin(hub("Chinese-Vicuna/instruct_chat_50k.jsonl", "main", "instruct_chat_50k.jsonl")),
    "meddialog": Origin(
        where="Download the Chinese part of MedDialog by hand from the folder that the README of "
        "https://github.com/UCSD-AI4H/Medical-Dialogue-System links to; its zip files may stay packed",
    ),
    "medicalgpt": Origin(
        hub(
            "shibing624/medical",
            "main",
            "pretrain/train_encyclopedia.json",
            "pretrain/valid_encyclopedia.json",
            "pretrain/test_encyclopedia.json",
            "pretrain/medical_book_zh.json",
            "finetune/train_zh_0.json",
            "finetune/valid_zh_0.json",
            "finetune/test_zh_0.json",
            "reward/train.json",
            "reward/valid.json",
            "reward/test.json",
        ),
    ),
    "medkg-triples": Origin(
        where="These triples circulate without an address of their own, as a folder `relation` with a text file for "
        "each relation: put that folder there if you have it",
    ),
    "medmcqa": Origin(
        where="Download the release by hand from the Google Drive link in the README of "
        "https://github.com/medmcqa/medmcqa and unpack dev.json; the copy on Hugging Face counts its answers otherwise",
    ),
    "medqa": Origin(hub("bigbio/med_qa", "ddef95d268cdad413693d634279a9a679d468469", "data_clean.zip")),
    "multiturn-chat": Origin(hub("BelleGroup/multiturn_chat_0.8M", "main", "multiturn_chat_0.8M.json")),
    "promptcblue": Origin(
        where="Sign up at Tianchi (https://tianchi.aliyun.com/competition/entrance/532084) and download the task files "
        "by hand: https://github.com/michael-wzhu/PromptCBLUE has only toy examples",
    ),
    "qasystem-medicalkg": Origin(
        where="The whole graph is what `chimed fetch xywy-kg` gets; here belong other files in its form, such as those "
        "of repositories derived from https://github.com/liuhuanyong/QASystemOnMedicalKG",
    ),
    "safety-prompts": Origin(
        hub(
            "thu-coai/Safety-Prompts",
            "559ab9f24ce4621e3f839ef05e1075b6c4f125ee",
            "typical_safety_scenarios.json",
            "instruction_attack_scenarios.json",
        ),
    ),
    "tcm-classics": Origin((Remote(_CLASSICS, "TCM-Ancient-Books.zip"),)),
    "tcm-kg": Origin(
        (
            *github(
                "fengxi177/Knowlegde_Graph_TCM",
                "725ae781436450288316b28321b5c515cbaa43f3",
                "fangji/data_fangji/relations_fangji.json",
                sha256="664d7197518d03ef6a8af299f1666925bf63f257f92665762a059bf918b36116",
            ),
            *github(
                "fengxi177/Knowlegde_Graph_TCM",
                "d6e92567d4112d2a01290801580c684c41c2a965",
                "zhongyao/data_zhongyao/relations_zhongyao.json",
            ),
        ),
    ),
    "toyhom": Origin(
        (
            *github(
                "Toyhom/Chinese-medical-dialogue-data",
                "26724a4357fcd142f0cab81188cacf1a2dd8a827",
                "Data_数据/IM_内科/内科5000-33000.csv",
                sha256="9fd5a19caa5b37aa6f7a3fa4bf5e9ce97716f0407c94a41ade951627f2f4db20",
            ),
            *github(
                "Toyhom/Chinese-medical-dialogue-data",
                "26724a4357fcd142f0cab81188cacf1a2dd8a827",
                *(f"Data_数据/{file}" for file in _TOYHOM),
            ),
        ),
    ),
    "webmedqa": Origin(
        github("hejunqing/webMedQA", "692f39ca1617872363734d6006c35aa1aaccaf74", "train.zip"),
        where="The validation and test questions lie beside it at https://github.com/hejunqing/webMedQA, if anywhere",
    ),
    "xywy-kg": Origin(github("liuhuanyong/QASystemOnMedicalKG", "master", "data/medical.json")),
    "zhongjing-rlhf": Origin(
        github("SupritYoung/Zhongjing", "fc0baf873f0e96f776d576698b47abb7e0bd589f", "src/rlhf_label/total_dataset.tsv"),
        where="The ranked replies themselves are published, if anywhere, from https://github.com/SupritYoung/Zhongjing",
    ),
}
