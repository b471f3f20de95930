"""Consent: does a text mention everything that people must know before they take part?

The elements are those of 45 CFR 46.116 (b) to (d) that apply to a listening study, and the minimum age. Each element
is found by the words that such texts use for it, in English, German and Arabic. The check can be wrong in both
directions: a text may use other words, or use a word without making the point. It helps authors and decides nothing.
"""

from __future__ import annotations

import re

# element -> a pattern of words, any of which counts as a mention
ELEMENTS: dict[str, str] = {
    "that this is research": r"research|\bstudy\b|forschung|\bstudie\b|بحثي|دراسة",
    "its purpose": r"\babout\b|purpose|\baims?\b|find out|darüber|zweck|\bziel\b|herausfinden|عن كيفية|الغرض|تهدف",
    "the procedure": r"you (will )?(do|hear|listen|first)|tasks?\b|procedure|sie (tun|hören)|ablauf|aufgabe|"
    "تسمعون|ستقومون",
    "how long it takes": r"minutes?\b|hours?\b|duration|minuten?\b|stunden?\b|dauert|دقيقة|دقائق|ساعة",
    "risks": r"\brisks?\b|discomfort|risik|unannehmlich|مخاطر",
    "benefits": r"benefits?\b|\bnutzen|\bvorteil|فائدة|فوائد",
    "the alternative": r"alternative|not to take part|alternativ|nicht teilzunehmen|البديل",
    "confidentiality": r"confidential|pseudonym|vertraulich|سرية|السرية",
    "later use of de-identified data": r"de-?identified|future research|later research|published|ohne personenbezug|"
    r"späterer forschung|veröffentlicht|أبحاث لاحقة|تُنشر",
    "payment": r"\bpaid\b|payment|compensat|\bpay\b|bezahl|vergüt|erhalten sie|يُدفع|المقابل",
    "that it is voluntary": r"voluntar|freiwillig|طوعي",
    "leaving without penalty": r"without (any )?(penalty|loss)|ohne (nachteil|folgen)|دون أي تبعات|دون عقوبة",
    "whom to contact": r"questions?\b|contact|@|fragen|kontakt|للأسئلة|راسلوا|اتصل",
    "the review board": r"\birb\b|review board|ethics|\bprotocol\b|exempt|ethik|votum|protokoll|أخلاقيات|حقوقكم",
    "the minimum age": r"\b1[68]\b|\bage\b|years old|volljährig|jahre alt|عمركم|سنة",
}


def missing_elements(text: str) -> list[str]:
    """The elements that a consent text does not mention, in the order of `ELEMENTS`."""
    return [name for name, words in ELEMENTS.items() if not re.search(words, text, re.IGNORECASE)]
