"""C-Eval: 13,948 multiple-choice items of 52 subjects, three of them medicine, as an evaluation set.

Huang et al. 2023, arXiv 2305.08322. A csv a subject and split, `id, question, A, B, C, D, answer, explanation`: dev has
explanations, val answers, and test neither, since it is scored by its authors. The subject stands in the file's name.
"""

import re
from collections.abc import Iterable, Mapping

from chimed.errors import RowError
from chimed.records import Body, Exam
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, hub
from chimed.sources.spec import Row, Source, first, letters, need

SUBJECTS = {
    "computer_network": "计算机网络",
    "operating_system": "操作系统",
    "computer_architecture": "计算机组成",
    "college_programming": "大学编程",
    "college_physics": "大学物理",
    "college_chemistry": "大学化学",
    "advanced_mathematics": "高等数学",
    "probability_and_statistics": "概率统计",
    "discrete_mathematics": "离散数学",
    "electrical_engineer": "注册电气工程师",
    "metrology_engineer": "注册计量师",
    "high_school_mathematics": "高中数学",
    "high_school_physics": "高中物理",
    "high_school_chemistry": "高中化学",
    "high_school_biology": "高中生物",
    "middle_school_mathematics": "初中数学",
    "middle_school_biology": "初中生物",
    "middle_school_physics": "初中物理",
    "middle_school_chemistry": "初中化学",
    "veterinary_medicine": "兽医学",
    "college_economics": "大学经济学",
    "business_administration": "工商管理",
    "marxism": "马克思主义基本原理",
    "mao_zedong_thought": "毛泽东思想和中国特色社会主义理论体系概论",
    "education_science": "教育学",
    "teacher_qualification": "教师资格",
    "high_school_politics": "高中政治",
    "high_school_geography": "高中地理",
    "middle_school_politics": "初中政治",
    "middle_school_geography": "初中地理",
    "modern_chinese_history": "近代史纲要",
    "ideological_and_moral_cultivation": "思想道德修养与法律基础",
    "logic": "逻辑学",
    "law": "法学",
    "chinese_language_and_literature": "中国语言文学",
    "art_studies": "艺术学",
    "professional_tour_guide": "导游资格",
    "legal_professional": "法律职业资格",
    "high_school_chinese": "高中语文",
    "high_school_history": "高中历史",
    "middle_school_history": "初中历史",
    "civil_servant": "公务员",
    "sports_science": "体育学",
    "plant_protection": "植物保护",
    "basic_medicine": "基础医学",
    "clinical_medicine": "临床医学",
    "urban_and_rural_planner": "注册城乡规划师",
    "accountant": "注册会计师",
    "fire_engineer": "注册消防工程师",
    "environmental_impact_assessment_engineer": "环境影响评价工程师",
    "tax_accountant": "税务师",
    "physician": "医师资格",
}
_WORD = re.compile(r"[a-z]+(?:_[a-z]+)*")
_SPLIT = re.compile(r"_(?:dev|val|test)$")


def subject(row: Row, names: Mapping[str, str]) -> str:
    """The Chinese name of a row's subject, by the name of its file; "" for a row that does not say where it is from.

    >>> subject({"#file": "ceval.zip!val/clinical_medicine_val.csv"}, SUBJECTS)
    '临床医学'
    """
    words = (_SPLIT.sub("", word) for word in _WORD.findall(first(row, "#file")))
    return next((names[word] for word in words if word in names), "")


def item(row: Row, question: str, answer: str, discipline: str) -> Exam:
    """The exam item of a row whose options stand in the columns A, B, C and D. Raises RowError `no-answer`."""
    if not row.keys() >= {question, *"ABCD"}:
        raise unknown_columns(row, f"{question}, A, B, C, D, {answer}")
    asked, key = need(row, question), first(row, answer)
    if not key:
        raise RowError("no-answer", asked[:80], held=asked, options=[first(row, letter) for letter in "ABCD"])
    options = tuple(need(row, letter) for letter in "ABCD")
    return Exam(asked, options, letters(key, 4), first(row, "explanation"), discipline=discipline)


def parse(row: Row) -> Iterable[Body]:
    """The exam item of a row.

    >>> row = {"id": "0", "question": "心脏有几个腔____", "A": "2", "B": "3", "C": "4", "D": "5", "answer": "C"}
    >>> parse(row)[0].answer
    'C'
    """
    return (item(row, "question", "answer", subject(row, SUBJECTS)),)


SOURCE = Source(
    name="ceval",
    title="C-Eval",
    homepage="https://github.com/hkust-nlp/ceval",
    license="CC-BY-NC-SA-4.0",
    files={"**/dev/*": "validation", "**/*dev*": "validation", "**/*val*": "validation", "**/*test*": "test"},
    parse=parse,
    shapes=("exam",),
    stages=("eval",),
    named=True,
    origin=Origin(
        hub(
            "ceval/ceval-exam",
            "3923b519fd180e689d0961bf3a032ece929742f3",
            "ceval-exam.zip",
            sha256="68786deeea68ff089c56563ee48fab8160da857b77b913437bb504d681fd8e20",
        ),
    ),
)
