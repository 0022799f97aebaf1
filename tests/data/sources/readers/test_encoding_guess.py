"""The encoding of a file is guessed by its letters, and Windows-1252 without a better guess."""

import pytest

from hanse.data.sources.readers.encoding_guess import guess

TEXTS = {
    "gb18030": ["今天天气很好，我们去公园散步。", "怎么退货？", "iPhone手机的质量不错, review: 5"],
    "big5": ["今天天氣很好，我們去公園散步。", "這個產品品質不錯，但是物流太慢了"],
    "cp932": ["今日はとても良い天気です。", "テキスト、データ", "この商品は最悪でした"],
    "euc_jp": ["今日はとても良い天気です。散歩に行きましょう。"],
    "cp949": ["오늘은 날씨가 정말 좋습니다.", "환불해 주세요"],
    "cp1251": ["Сегодня очень хорошая погода.", "ПРИВЕТ", "да", "Дуже гарна погода, але їжа"],
    "koi8_r": ["Сегодня очень хорошая погода.", "ПРИВЕТ ВСЕМ"],
    "cp1253": ["Σήμερα ο καιρός είναι πολύ καλός.", "ΚΑΛΗΜΕΡΑ"],
    "cp1255": ["היום מזג האוויר יפה מאוד"],
    "cp1256": ["الطقس جميل جدا اليوم"],
    "cp874": ["วันนี้อากาศดีมาก"],
    "cp1250": [
        "Dziś jest bardzo ładna pogoda",
        "Příliš žluťoučký kůň",
        "Ma szép az idő, győződjön",
    ],
    "iso8859_2": ["Dziś jest ładna pogoda, będziemy się ścigać"],
    "cp1254": ["Bugün hava çok güzel, yürüyüşe çıkıyoruz"],
    "cp1257": ["Šiandien labai gražus oras, eikime pasivaikščioti į mišką"],
}
WESTERN = [
    *("Größe", "Übel", "ÄÖÜ", "Äußerst üble Ärzte", "täällä on hyvää ääntä", "På ön bor en älg"),
    *("café crème à la française", "Ça va être très bien à l’été", "È già così però più"),
    *("¿Dónde está el niño?", "São Paulo não é a capital", "Þetta er mjög gott veður í dag"),
    *("naïve — “quoted” 5 €", "£5 each", "don’t", "5 °C", "– a –"),
]


@pytest.mark.parametrize("encoding", TEXTS)
def test_letters_suggest_an_encoding(encoding: str) -> None:
    for text in TEXTS[encoding]:
        content = f"text,label\n{text},1\n".encode(encoding)
        assert guess(content) == encoding, text
        assert guess(content * 2000) == encoding


@pytest.mark.parametrize("text", WESTERN)
def test_western_texts_are_windows_1252_as_ever(text: str) -> None:
    assert guess(f'{{"text": "{text}"}}'.encode("cp1252")) == "cp1252"
