"""Units of measurement as they are written after a number, in symbols and in the words of many
languages.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from math import isfinite
from typing import Any, NamedTuple

import pint


class BaseUnits(NamedTuple):
    """How a unit is turned into the base units of what it measures: `factor * number + offset`.

    Attributes:
        dimension: What it measures, such as `[length]`; percentages and each currency are their
            own.
        factor: How many base units it is.
        offset: The base units at its zero, as of °C.
    """

    dimension: str
    factor: float
    offset: float


class Unit(NamedTuple):
    """A unit in a text.

    Attributes:
        name: As pint names it, such as `kilometer / hour`; `percent` and currencies by their own
            names.
        end: Where it ends.
    """

    name: str
    end: int


NO_UNIT = BaseUnits("", 1.0, 0.0)
PERCENT = "percent"
HOUR = "hour"


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SYMBOLS = _set_of("""
    m km cm mm dm μm nm pm ft yd mi nmi ly au pc g kg mg μg ng t kt Mt Gt lb lbs oz s ms μs ns h
    hr hrs min mins sec secs wk yr yrs K L l ml mL dl dL cl cL μL μl hL J kJ MJ GJ mJ cal kcal W
    mW kW MW GW TW Wh kWh MWh GWh TWh V mV kV MV A mA μA mAh Ah Hz kHz MHz GHz THz Pa kPa hPa
    MPa GPa mbar bar psi atm mmHg N kN mN Nm ha mph kph kmph knot knots kn rpm eV keV MeV GeV TeV mol
    mmol μmol nmol pmol kmol Ω kΩ MΩ mΩ μF nF pF mH μH mT μT lx lm cd Bq kBq MBq Sv mSv μSv Gy
    mGy kB KB MB GB TB PB KiB MiB GiB TiB bit bits kbit Mbit Gbit byte bytes hp ppm ppb rad sr
    acre acres px
""")
"""Symbols that pint knows by these names, and that are not words after a number."""
_SPELLINGS = {
    "μm": "micrometer", "μg": "microgram", "μs": "microsecond", "μL": "microliter", "μl": "microliter",
    "μmol": "micromole", "μA": "microampere", "μF": "microfarad", "μH": "microhenry", "μT": "microtesla",
    "μSv": "microsievert", "au": "astronomical_unit", "kn": "knot", "kt": "kilometric_ton",
    "mmHg": "millimeter_Hg", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte",
    "hr": "hour", "hrs": "hour", "h": "hour", "mins": "minute", "min": "minute", "secs": "second",
    "sec": "second", "yr": "year", "yrs": "year", "wk": "week", "L": "liter", "l": "liter",
    "lbs": "pound", "mph": "mile / hour", "kph": "kilometer / hour", "kmph": "kilometer / hour",
    "Nm": "newton * meter", "nmi": "nautical_mile",
    "Wh": "watt * hour", "kWh": "kilowatt * hour", "MWh": "megawatt * hour", "GWh": "gigawatt * hour",
    "TWh": "terawatt * hour", "Ah": "ampere * hour", "mAh": "milliampere * hour", "Mt": "megametric_ton",
    "Gt": "gigametric_ton", "t": "metric_ton", "hp": "horsepower", "ly": "light_year", "pc": "parsec", "ms": "millisecond",
    "bit": "bit", "bits": "bit", "byte": "byte", "bytes": "byte", "kbit": "kilobit", "Mbit": "megabit", "Gbit": "gigabit",
    "°": "degree", "%": PERCENT, "‰": "permille", "px": "pixel", "rpm": "revolutions_per_minute",
    "acre": "acre", "acres": "acre", "A": "ampere", "K": "kelvin", "\N{GREEK CAPITAL LETTER OMEGA}": "ohm",
    "kΩ": "kiloohm", "MΩ": "megaohm", "mΩ": "milliohm",
}  # fmt: skip

_WORDS = """
    percent: percent prozent procent percento % パーセント 퍼센트 процент процента процентов
    day: day days tag tage tagen día días dia dias jour jours giorno giorni dag dagen dni dzień dní den день дня дней
    day: 天 日間 일간 วัน दिन يوم أيام ngày gün päivää päivä dagar
    hour: hour hours stunde stunden hora horas heure heures ora ore uur uren timer timme timmar godzin godziny hodin hodiny
    hour: час часа часов ч 小时 小時 时间 時間 시간 ชั่วโมง घंटे घंटा ساعة ساعات saat giờ tuntia
    minute: minute minutes minuten minuto minutos minuti minut minuty minuter минута минуты минут мин 分钟 分鐘 分間 분 นาที
    minute: मिनट دقيقة دقائق dakika phút minuuttia
    second: second seconds sekunde sekunden segundo segundos seconde secondes secondo secondi seconden sekund sekundy
    second: секунда секунды секунд с 秒 秒钟 秒鐘 秒間 초 วินาที सेकंड ثانية ثوان saniye giây
    week: week weeks woche wochen semana semanas semaine semaines settimana settimane weken veckor uker uger tygodni týdnů
    week: неделя недели недель 周 週間 星期 주 สัปดาห์ सप्ताह أسبوع أسابيع hafta tuần
    month: month months monat monate monaten mes meses mois mese mesi maand maanden månader miesięcy měsíců месяц месяца
    month: месяцев 个月 個月 か月 ヶ月 カ月 개월 เดือน महीने شهر أشهر ay tháng
    year: year years jahr jahre jahren año años ano anos an ans année années anno anni jaar jaren år lat lata let год года
    year: лет 年 年間 년 ปี साल वर्ष سنة سنوات yıl năm
    decade_of_years: decade decades jahrzehnt jahrzehnte jahrzehnten década décadas décennie décennies
    century: century centuries jahrhundert jahrhunderte siglo siglos siècle siècles secolo secoli
    kilometer: km kilometer kilometers kilometre kilometres kilometern kilómetro kilómetros quilômetro quilômetros
    kilometer: kilomètre kilomètres chilometro chilometri км километр километра километров 公里 千米 キロメートル 킬로미터
    kilometer: กิโลเมตร किलोमीटर كيلومتر كيلومترات
    meter: meter meters metre metres metern metro metros mètre mètres metri м метр метра метров 米 公尺 メートル 미터 เมตร मीटर
    meter: متر أمتار mét metrów metrů
    centimeter: zentimeter centímetro centímetros centimètre centimètres centimetro centimetri см сантиметр сантиметра
    centimeter: сантиметров 厘米 公分 センチ センチメートル 센티미터 เซนติเมตร सेंटीमीटर سنتيمتر
    millimeter: milímetro milímetros millimètre millimètres millimetri мм миллиметр миллиметра миллиметров 毫米 ミリ
    millimeter: ミリメートル 밀리미터 มิลลิเมตร
    kilogram: kilo kilos kilogramm kilogramo kilogramos quilo quilos kilogramme kilogrammes chilo chili chilogrammi кг
    kilogram: килограмм килограмма килограммов 公斤 千克 キログラム キロ 킬로그램 กิโลกรัม किलोग्राम كيلوغرام
    gram: gram grams gramm gramo gramos gramme grammes grammi grammo г грамм грамма граммов 克 グラム 그램 กรัม ग्राम غرام غرامات
    milligram: milligramm miligramo miligramos milligrammes milligrammi мг миллиграмм 毫克 ミリグラム 밀리그램
    microgram: mcg 微克 мкг マイクログラム
    metric_ton: tonne tonnes tonnen tonelada toneladas tonnellata tonnellate tonnellate тонна тонны тонн 吨 噸 トン 톤 ton tons
    liter: liter liters litre litres litern litro litros litri л литр литра литров 升 リットル 리터 ลิตร लीटर لتر
    milliliter: mililitro mililitros millilitri мл миллилитр 毫升 ミリリットル 밀리리터
    degree: grad grado grados grau graus degré degrés gradi degree degrees градус градуса градусов 度 도 องศา डिग्री درجة
    degree_Celsius: celsius centigrade 摄氏度 攝氏度 ℃
    degree_Fahrenheit: fahrenheit 华氏度
    kilocalorie: kilokalorie kilokalorien kilocaloría kilocalorías kilocalorías ккал 千卡 大卡 キロカロリー
    calorie: kalorie kalorien caloría calorías calorie calories калория калории калорий 卡路里 カロリー
    hectare: hectare hectares hektar hectárea hectáreas ettari га гектаров 公顷
    kelvin: kelvin kelvins кельвин
    meter ** 2: quadratmeter quadratmetern sqm 平方米 平方メートル 제곱미터
    kilometer ** 2: quadratkilometer quadratkilometern 平方公里 平方キロメートル 평방킬로미터
    meter ** 3: kubikmeter kubikmetern 立方米
    kilometer / hour: stundenkilometer
    euro: euro euros eur € евро 欧元 ユーロ 유로 يورو
    US_dollar: dollar dollars usd us$ $ dólar dólares доллар доллара долларов 美元 ドル 달러 دولار
    pound_sterling: gbp £
    yen: yen jpy ¥ 日元 日圓 円 엔
    yuan: yuan renminbi rmb cny 元 人民币
    rupee: rupee rupees inr ₹ रुपये
    ruble: ruble rubles rouble roubles rub ₽ рубль рубля рублей
    swiss_franc: franken chf
    korean_won: krw ₩ 원
    baht: baht บาท ฿
"""
"""Unit by unit the words for it; plain English that pint knows by itself is left out."""

_CURRENCIES = (
    "euro", "US_dollar", "pound_sterling", "yen", "yuan", "rupee", "ruble", "swiss_franc", "korean_won", "baht",
)  # fmt: skip
CURRENCY_SIGNS = {
    "$": "US_dollar", "€": "euro", "£": "pound_sterling", "¥": "yen", "₹": "rupee", "₽": "ruble", "₩": "korean_won",
    "฿": "baht",
}  # fmt: skip
_CURRENCY_CODES = {"USD": "US_dollar", "US$": "US_dollar", "EUR": "euro", "GBP": "pound_sterling", "JPY": "yen", "CNY": "yuan",
                   "RMB": "yuan", "INR": "rupee", "RUB": "ruble", "CHF": "swiss_franc", "KRW": "korean_won"}  # fmt: skip

NOT_UNITS = _set_of("""
    acts arts bits care cares cats cent cents chain chains circle circles count counts cycle
    cycles dots exact gamma grade grades hand hands link links neon particle particles pins
    point points pole poles quarter quarters ramp rare rats section sections shot shots sigma
    turn turns unit units water waters people member members dot pica slug slugs stone rods
    perch bags bag barn barns outer peak peaks poise rhes survey drops note notes steps step
    base beat beats
""")
"""Words that are units to pint and, after a number in a sentence, things."""

_PHRASES = {
    r"(?:°|degrees?|deg\.?|grad|grados?|degrés?|graus?|gradi)\s?(?:C|celsius|centigrade)\b": (
        "degree_Celsius"
    ),
    r"(?:°|degrees?|deg\.?|grad|degrés?)\s?(?:F|fahrenheit)\b": "degree_Fahrenheit",
    r"per\s?cent\b|por ciento\b|pour cent\b|per cento\b|percentage points?\b|prozentpunkte?n?\b": (
        PERCENT
    ),
    r"mm ?Hg\b": "millimeter_Hg",
    r"light[- ]years?\b|lichtjahren?\b|años luz\b|années[- ]lumière\b": "light_year",
    r"nautical miles?\b|sea miles?\b": "nautical_mile",
    r"astronomical units?\b": "astronomical_unit",
    r"(?:metric )tons?\b|metric tonnes?\b": "metric_ton",
    r"fluid ounces?\b|fl\.? ?oz\b": "fluid_ounce",
    r"pounds? sterling\b": "pound_sterling",
    r"US dollars?\b|U\.S\. dollars?\b": "US_dollar",
    r"swiss francs?\b": "swiss_franc",
}
"""Units of several words, whatever their case."""
# Any unit of several words; its group p0, p1, … tells which.
_PHRASE = re.compile(
    "|".join(f"(?P<p{i}>{words})" for i, words in enumerate(_PHRASES)), re.IGNORECASE
)
_PHRASE_NAMES = tuple(_PHRASES.values())

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Character classes of scripts that do not set words apart, and of Korean, whose particles stick to
a word.
"""

_SPACED_WORD = rf"[^\W\d_{UNSPACED}]+"
_ATOM = re.compile(
    # a word of letters, a run of a script without spaces, or a sign; then a power, as in m^2, s^-1,
    # m3
    rf"(?P<area>(?:square|sq\.?|cubic|cu\.?)\s)?(?P<word>US\$|{_SPACED_WORD}|[{UNSPACED}]{{1,8}}|[°%‰€$£¥₹₽₩฿])(?P<power>\^?-?[1-4](?!\d))?"
    r"(?P<raised>\s(?:squared|cubed|cuadrados?|carrés?|cubes?|quadrati|quadrados?)\b)?",
    re.IGNORECASE,
)
# Between two units: the second divides.
_DIVIDED = re.compile(r"\s?/\s?|\sper\s|\spro\s|\spor\s|\spar\s")
_DIVIDED_LATER = re.compile(
    r"\s(?:of|de|d'|an)\s(?:[^\W\d_]+\s){1,2}?per\s(?=[^\W\d_])", re.IGNORECASE
)
"""What is measured may stand between a unit and the one it is divided by: g of protein per kg."""
# Between two units: they are multiplied; a space does so before a negative power alone: "m s^-1".
_TIMES = re.compile(r"\s?[·*]\s?|-(?=[^\W\d_])|\s(?=[^\W\d_]{1,3}\^?-[1-4])")
_CUBED = frozenset(("cubic", "cu", "cu.", "cubed", "cubes"))


def unit_at(text: str, start: int) -> Unit | None:
    """Returns the unit that begins at a place of a rendered text, after at most one space or
    hyphen; None where none does.

    Example:
        >>> unit_at("5 km/h", 1), unit_at("9.8 m s^-2", 3), unit_at("20 people", 2)
        (Unit(name='kilometer / hour', end=6), Unit(name='meter * second ** -2', end=10), None)
        >>> unit_at("2 g of protein per kg", 1).name, unit_at("3 cm per decade", 1).name
        ('gram / kilogram', 'centimeter / decade_of_years')
    """
    if text[start : start + 1] in (" ", "-"):
        start += 1
    first = _factor_at(text, start)
    if first is None:
        return None
    name, end = first
    for _ in range(3):
        joint = _DIVIDED.match(text, end) or _DIVIDED_LATER.match(text, end)
        is_divided = joint is not None
        joint = joint or _TIMES.match(text, end)
        following = _factor_at(text, joint.end()) if joint else None
        if following is None:
            break
        whole = f"{name} {'/' if is_divided else '*'} {following.name}"
        if base_units_of(whole) is None:
            break
        name, end = whole, following.end
    return Unit(name, end) if base_units_of(name) is not None else None


def _factor_at(text: str, start: int) -> Unit | None:
    """Returns the unit at a place without what it is multiplied or divided by."""
    if (phrase := _PHRASE.match(text, start)) is not None:
        return Unit(_PHRASE_NAMES[int((phrase.lastgroup or "p0")[1:])], phrase.end())
    atom = _ATOM.match(text, start)
    if atom is None:
        return None
    word, end = atom["word"], atom.end("word")
    name = name_of(word)
    while not name and len(word) > 1 and _is_unspaced(word):
        # the unit is the beginning of a run of characters: 4克左右
        word, end = word[:-1], end - 1
        name = _in_words(word)
    if not name or (name == "inch" and not _is_inch(text, end)):
        return None
    power = int(atom["power"].lstrip("^")) if atom["power"] and end == atom.end("word") else 1
    if power != 1:
        end = atom.end("power")
    area = (atom["area"] or "").strip().casefold()
    raised = (
        (atom["raised"] or "").strip().casefold()
        if end in (atom.end("word"), atom.end("power"))
        else ""
    )
    if raised:
        end = atom.end("raised")
    if area or raised:
        power *= 3 if area in _CUBED or raised in _CUBED else 2
    if power == 1:
        return Unit(name, end)
    return Unit(f"{name} ** {power}", end) if name in _multipliable() else None


def _is_unspaced(word: str) -> bool:
    return re.fullmatch(f"[{UNSPACED}]+", word) is not None


def _is_inch(text: str, end: int) -> bool:
    """Whether an "in" after a number is the inch and not the preposition."""
    return (
        re.match(
            r"\s?(?:[.,;:)²/^]|x\b|×|\Z|(?:long|wide|high|tall|deep|thick|across|in diameter)\b)",
            text[end : end + 20],
        )
        is not None
    )


@cache
def _multipliable() -> frozenset[str]:
    """Returns the units that areas and volumes are made of, and those that stand under a
    fraction.
    """
    return frozenset((
        "meter", "kilometer", "centimeter", "millimeter", "micrometer", "nanometer", "decimeter", "foot", "inch", "yard", "mile",
        "second", "kilogram", "kelvin", "mole", "gram", "hour", "minute", "day", "year", "liter", "ampere", "liter",
    ))  # fmt: skip


@cache
def _words() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in _WORDS.strip().splitlines():
        name, _, words = line.strip().partition(": ")
        found.update(dict.fromkeys(words.split(), name))
    return found


def _in_words(word: str) -> str:
    return _words().get(word) or _words().get(word.casefold(), "")


@lru_cache(maxsize=4096)
def name_of(word: str) -> str:
    """Returns the full name of a unit of one word; empty where it names none.

    Example:
        >>> name_of("km"), name_of("Minuten"), name_of("pounds"), name_of("people")
        ('kilometer', 'minute', 'pound', '')
    """
    if word in _SPELLINGS:
        return _SPELLINGS[word]
    if word in _SYMBOLS:
        return _parsed(word)
    if word in ("in", "inch", "inches"):
        return "inch"
    if known := _in_words(word):
        return known
    if len(word) < 4 or word.casefold() in NOT_UNITS or not word.isascii():
        return ""
    return _parsed(word) or _parsed(word.casefold())


def _parsed(words: str) -> str:
    try:
        return str(_registry().parse_units(words))
    except Exception:  # pint raises whatever its tokenizer stumbles over
        return ""


@lru_cache(maxsize=4096)
def parse_unit(words: str) -> str:
    """Returns the full name of a unit that is written out or abbreviated; empty where the words
    name none.

    Example:
        >>> parse_unit("km/h"), parse_unit("square meters"), parse_unit("people")
        ('kilometer / hour', 'meter ** 2', '')
    """
    found = unit_at(words, 0)
    return found.name if found is not None and found.end == len(words) else ""


@cache
def base_units_of(unit: str) -> BaseUnits | None:
    """Returns how a unit is turned into base units; None where it can't be, as of one on a
    logarithmic scale.

    Example:
        >>> base_units_of("kilometer"), base_units_of("percent")
        (BaseUnits(dimension='[length]', factor=1000.0, offset=0.0), BaseUnits(dimension='percent',
        factor=1.0, offset=0.0))
    """
    if not unit:
        return NO_UNIT
    if unit in (PERCENT, "permille"):
        return BaseUnits(PERCENT, 1.0 if unit == PERCENT else 0.1, 0.0)
    if " " in unit:
        unit = unit.replace("degree_", "delta_degree_")
    try:
        zero, one = (_registry().Quantity(number, unit).to_base_units() for number in (0.0, 1.0))
        factor, offset = float(one.magnitude - zero.magnitude), float(zero.magnitude)
        dimension = str(one.dimensionality)
    # pint raises whatever its tokenizer stumbles over, and refuses to multiply what has an offset
    except Exception:
        return None
    if not (isfinite(factor) and isfinite(offset)) or factor == 0:
        return None
    return BaseUnits(_DIMENSIONLESS.get(unit, dimension), factor, offset)


_DIMENSIONLESS = {"degree": "angle", "radian": "angle"}


def currency_before(text: str, start: int) -> tuple[str, int] | None:
    """Returns the currency whose sign or code stands before a number, and where it begins; None
    where none does.
    """
    before = text[max(0, start - 4) : start]
    bare = before.rstrip(" ")
    for code, name in _CURRENCY_CODES.items():
        if bare.endswith(code) and not bare[: -len(code)][-1:].isalnum():
            return name, start - len(before) + len(bare) - len(code)
    if bare and bare[-1] in CURRENCY_SIGNS:
        return CURRENCY_SIGNS[bare[-1]], start - len(before) + len(bare) - 1
    return None


@cache
def _registry() -> Any:
    registry = pint.UnitRegistry()
    registry.define("decade_of_years = 10 * year")
    registry.define("ppb = 1e-9")
    for name in _CURRENCIES:
        registry.define(f"{name} = [{name}]")
    return registry
