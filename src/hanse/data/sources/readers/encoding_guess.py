"""Guesses the encoding of bytes that are not UTF-8, by the letters that are frequent in languages.

A wrong encoding decodes a text into letters that are rare. In a Latin script, bytes above 127
mostly stand beside ASCII letters; in others they do not.
"""

import re

WESTERN = "cp1252"  # has all printed characters of Latin-1
SAMPLE = 1 << 16  # bytes of lines with bytes above 127 that are looked at
LATIN_WORDS = 0.5  # share of runs of bytes above 127 beside ASCII letters, in a Latin script
LEAST = 0.5  # fewest frequent letters for a guess, relative to the usual share
AHEAD = 0.03  # by which another encoding of Latin letters must be better than the western one

# Encoding: its frequent letters, and their usual share in all letters that are not ASCII.
IDEOGRAPHS = {  # two bytes for most letters
    "gb18030": (
        "的一是不了在人有我他这中大来上个国说们到和你地出道也时年得就那要下以生会自着去之过家学对可她里后"
        "小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动"
        "两长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等"
        "几很业最间新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先"
        "山五太水万市眼体别处总才场师书比住员九笑性通目华报立马命张活难神数件安表原车白应路期叫死常提感金"
        "何更反合放做系计或司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它许八特觉望直服毛林题"
        "，。！？、：；“”（）",
        0.6,
    ),
    "big5": (
        "的一是不了在人有我他這中大來上個國說們到和你地出道也時年得就那要下以生會自著去之過家學對可她裡後"
        "小麼心多天而能好都然沒日於起還發成事只作當想看文無開手十用主行方又如前所本見經頭面公同三已老從動"
        "兩長知民樣現分將外但身些與高意進把法此實回二理美點月明其種聲全工己話兒者向情部正名定女問力機給等"
        "幾很業最間新什打便位因重被走電四第門相次東政海口使教西再平真聽世氣信北少關並內加化由卻代軍產入先"
        "，。！？、：；「」（）",
        0.6,
    ),
    "cp932": (
        "のにはをがでとしたてるいれなさすあもかこらりくうまよそっきんだけみどちせめじーン、。ルスイトラリテキデアタクシマカコロ",
        0.55,
    ),
    "euc_jp": (
        "のにはをがでとしたてるいれなさすあもかこらりくうまよそっきんだけみどちせめじーン、。ルスイトラリテキデアタクシマカコロ",
        0.55,
    ),
    "cp949": (
        "이다는의에가을하고지한기로사리도나를자은어서인아대일수그시있라정전보해부여만과제들주스게니원장안세"
        "상오구비무우화조관마계신것모생성습드면동국공경유음요합거없저분지으말러년적소방연진선문양까했",
        0.6,
    ),
}
SCRIPTS = {  # one byte for each letter
    "cp1251": ("оеаинтсрвлкмдпуяіОЕАИНТСРВЛКМДПУЯ", 0.8),
    "koi8_r": ("оеаинтсрвлкмдпуяіОЕАИНТСРВЛКМДПУЯ", 0.8),
    "cp1253": ("αοιετσνηυρπκμλωςίόάέήύΑΟΙΕΤΣΝΗΥΡΠΚΛΜ", 0.8),
    "cp1255": ("יוהלאתרבמשנעדם", 0.8),
    "cp1256": ("اليمونترةبعدسفهكقحج", 0.8),
    "cp874": ("านรอกเงมยลวดทตสปะหคพแใไขจชถั่้ีิื์ุู็", 0.9),
}
LATIN = (  # the western one comes first, in two languages that share few letters
    (WESTERN, "äöüßéèàùçñóíáúêôâîûãåøæëïìòÄÖÜÉÈÀÇÑÓÍÁÚÊÔÂÎÛÃÅØÆœ«»“”‘’„‚–—…€°§©®·¿¡´•™ºª£²½\xa0"),
    (WESTERN, "áéíóúýþæöðÁÉÍÓÚÝÞÆÖÐ“„–\xa0"),
    ("cp1250", "ąćęłńóśźżáčďéěíňřšťúůýžőűöüäôľĺŕĄĆŁŚŹŻČĎĚŇŘŠŤŽŐŰÁÉÍÓÚÖÜ“”‘’„–—…€°§«»\xa0"),
    ("iso8859_2", "ąćęłńóśźżáčďéěíňřšťúůýžőűöüäôľĺŕĄĆŁŚŹŻČĎĚŇŘŠŤŽŐŰÁÉÍÓÚÖÜ§\xa0"),
    ("cp1257", "ąčęėįšųūžāēģīķļņõäöüĄČĘĖĮŠŲŪŽĀĒĢĪĶĻŅÕÄÖÜ“”„’–—…€§«»\xa0"),
    ("cp1254", "ışğçöüİŞĞÇÖÜâîû“”‘’–—…€°§«»\xa0"),
)
_ABOVE = re.compile(rb"[\x80-\xff]+")
_IN_WORD = re.compile(rb"[A-Za-z][\x80-\xff]+|[\x80-\xff]+[A-Za-z]")


def guess(content: bytes) -> str:
    """The likeliest encoding of a text that is not UTF-8, as the name of Python's codec."""
    sample = _sample(content)
    latin = len(_IN_WORD.findall(sample)) >= LATIN_WORDS * len(_ABOVE.findall(sample))
    candidates = IDEOGRAPHS if latin else IDEOGRAPHS | SCRIPTS
    likeness = {
        encoding: _share(sample, encoding, letters) / usual
        for encoding, (letters, usual) in candidates.items()
    }
    best = max(likeness, key=lambda encoding: likeness[encoding])
    if likeness[best] > LEAST:
        return best
    shares = [(_share(sample, encoding, letters), encoding) for encoding, letters in LATIN]
    western = max(share for share, encoding in shares if encoding == WESTERN)
    share, best = max(shares, key=lambda pair: pair[0])
    return best if share > western + AHEAD else WESTERN


def _sample(content: bytes) -> bytes:
    """The first lines with bytes above 127."""
    sample = b""
    for line in content.split(b"\n"):
        if _ABOVE.search(line):
            sample += line[:SAMPLE] + b"\n"
            if len(sample) >= SAMPLE:
                break
    return sample


def _share(sample: bytes, encoding: str, letters: str) -> float:
    """The share of the frequent letters in all letters that are not ASCII."""
    foreign = [letter for letter in sample.decode(encoding, "replace") if letter > "\x7f"]
    return sum(letter in letters for letter in foreign) / max(len(foreign), 1)
