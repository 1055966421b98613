"""The English that the rules know: empty words, negations, months, and what names have in
common.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


EMPTY = _words("""
    a about above actually all also am an and any are around as at be because been being both but by can certainly could definitely did do
    does doing done down each else ever every exactly fact for from get gets had has have having he her here hers him his how however i if
    in indeed into is it its itself just know known let like may me might more most much must my no nor not of off on once one only or
    other our out over own per please quite rather really roughly same she should simply so some still such sure than that the their them
    then there these they this those through to too truly under until up upon us very was we well were what when where whether which while
    who whom whose why will with within would yes yet you your
    answer believe correct correctly far guess maybe perhaps probably recall remember right short suppose think understand
""")
"""Words that say nothing about what a sentence is about."""

EMPTY_ELSEWHERE = _words("""
    der die das ein eine einen einem einer eines ist sind war wird werden wurde und oder in im am an auf fur mit von vom zu zum zur den
    dem des muss mussen sollte sollten soll kann konnen darf durfen es sie er nach vor bei pro als auch so man sich ihre ihr
    el la los las un una unos unas es son de del en y o a al con por para se su sus que debe deben puede pueden mas cada lo
    le les une est sont du des et ou au aux avec par pour ce cette ces il elle on doit doivent peut peuvent etre faut dans sur plus l d qu
""")
"""The same in German, Spanish and French, without accents."""
IRREGULAR = {
    "given": "give", "gave": "give", "taken": "take", "took": "take", "held": "hold", "kept": "keep", "paid": "pay", "made": "make",
    "built": "build", "sold": "sell", "bought": "buy", "lost": "lose", "left": "leave", "written": "write", "wrote": "write",
    "shown": "show", "known": "know", "fed": "feed", "led": "lead", "ran": "run", "came": "come", "went": "go", "found": "find",
    "children": "child", "women": "woman", "men": "man", "daily": "day", "nightly": "night", "yearly": "year", "worn": "wear",
    "stored": "store", "storing": "store",
}  # fmt: skip
"""Forms whose ending does not tell what they are forms of."""

NEGATIONS = _words("not never no cannot neither nor none nobody nothing nowhere hardly")
MYTHS = _words("myth misconception")
DENIED = {
    "forbidden": "allow",
    "prohibited": "allow",
    "banned": "allow",
    "false": "true",
    "unable": "able",
}
"""What denies another word by itself, and the stem of that word."""

POINTING = _words("it he she they this that these those its their his her")
"""Words that stand for what was asked about."""

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
MEASURES = _words("""
    age altitude amount area boiling code capacity count cost degree density depth diameter distance duration elevation freezing
    frequency height length lifespan mass melting number percentage period population power pressure price radius rate share size speed
    temperature thickness time value velocity voltage volume weight width wavelength
""")
"""What a question that wants a number asks for."""

JOINING = _words("of de da do di du van von der den la le el al bin y")
"""Words without a capital inside of a name."""
GENERIC = _words("""
    city island islands river mount mountain lake sea ocean state states republic kingdom federation union democratic people's saint st sir
    dr mr mrs ms king queen president
""")
"""Words in a name that don't tell whose it is."""
OPPOSED = _words(
    "north south east west northern southern eastern western new old upper lower inner outer"
)
"""Words that tell two names apart that end alike."""
