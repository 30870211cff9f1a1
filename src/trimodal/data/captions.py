"""What can be said and asked about a scene, in English and Mandarin.

text = caption(scene, "en")
"""

from dataclasses import replace

from trimodal.data.shapes import RGB, SHAPES, Scene

COLOURS = {
    "en": {colour: colour for colour in RGB},
    "zh": {colour: f"{name}色" for colour, name in zip(RGB, "红橙黄绿蓝紫黑白", strict=True)},
}
NOUNS = {
    "en": {shape: shape for shape in SHAPES},
    "zh": dict(zip(SHAPES, ("圆形", "正方形", "三角形", "星形", "圆环", "十字"), strict=True)),
}
NUMBERS = {"en": ("one", "two", "three", "four"), "zh": ("一个", "两个", "三个", "四个")}
PLACES = {
    "en": (
        *("at the top left", "at the top", "at the top right"),
        *("on the left", "in the middle", "on the right"),
        *("at the bottom left", "at the bottom", "at the bottom right"),
    ),
    "zh": ("左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角"),
}
RELATIONS = {
    "en": ("above", "below", "to the left of", "to the right of"),
    "zh": ("上面", "下面", "左边", "右边"),
}
QUESTIONS = {
    "en": {
        "colour": "what colour is the {}?",
        "colours": "what colour are the {}?",
        "shape": "what shape is the {} one?",
        "where": "where is the {}?",
        "count": "how many {} are there?",
    },
    "zh": {
        "colour": "{}是什么颜色？",
        "colours": "{}是什么颜色？",
        "shape": "{}的是什么形状？",
        "where": "{}在哪里？",
        "count": "有几个{}？",
    },
}


def pair_name(pair: tuple[str, str], lang: str) -> str:
    """A colour and a shape, such as `red circle`."""
    colour, shape = COLOURS[lang][pair[0]], NOUNS[lang][pair[1]]
    return f"{colour} {shape}" if lang == "en" else f"{colour}的{shape}"


def one(pair: tuple[str, str], lang: str) -> str:
    """The same with an article or its like, such as `an orange star`."""
    name = pair_name(pair, lang)
    if lang == "zh":
        return f"一个{name}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def caption(scene: Scene, lang: str) -> str:
    """All of the scene but the ground; two scenes with one caption show the same.

    Of two figures either may come first, see `paraphrases`.
    """
    pairs = [figure.pair for figure in scene.figures]
    names = [one(pair, lang) for pair in pairs]
    if scene.kind == "single":
        place = PLACES[lang][scene.link]
        return f"{names[0]} {place}" if lang == "en" else f"{place}有{names[0]}"
    if scene.kind == "count":
        return _several(len(pairs), pairs[0], lang)
    if scene.kind == "relation":
        relation = RELATIONS[lang][scene.link]
        if lang == "en":
            return f"{names[0]} {relation} {names[1]}"
        return f"{names[0]}在{names[1]}的{relation}"
    comma, final = (", ", " and ") if lang == "en" else ("、", "和")
    return comma.join(names[:-1]) + final + names[-1]


def paraphrases(scene: Scene, lang: str) -> list[str]:
    """The caption, then every other one that says the same of the scene."""
    found = [caption(scene, lang)]
    if scene.kind == "relation":
        # above and below are neighbours, and so are left and right
        found.append(
            caption(replace(scene, figures=scene.figures[::-1], link=scene.link ^ 1), lang)
        )
    return found


def questions(scene: Scene, lang: str) -> list[tuple[str, str]]:
    """Questions that have one answer, each with it; in the same order in every language."""
    ask = QUESTIONS[lang]
    first = scene.figures[0]
    if scene.kind == "count":
        noun = NOUNS[lang][first.shape]
        plural = _plural(noun) if lang == "en" else noun
        return [
            (ask["count"].format(plural), NUMBERS[lang][len(scene.figures) - 1]),
            (ask["colours"].format(plural), COLOURS[lang][first.colour]),
        ]
    found: list[tuple[str, str]] = []
    for figure in scene.figures:
        colour, noun = COLOURS[lang][figure.colour], NOUNS[lang][figure.shape]
        if sum(other.shape == figure.shape for other in scene.figures) == 1:
            found.append((ask["colour"].format(noun), colour))
        if sum(other.colour == figure.colour for other in scene.figures) == 1:
            found.append((ask["shape"].format(colour), noun))
    if scene.kind == "single":
        place = PLACES[lang][scene.link]
        found.append((ask["where"].format(NOUNS[lang][first.shape]), place))
    if scene.kind == "relation":
        other, relation = pair_name(scene.figures[1].pair, lang), RELATIONS[lang][scene.link]
        answer = f"{relation} the {other}" if lang == "en" else f"在{other}的{relation}"
        found.append((ask["where"].format(pair_name(first.pair, lang)), answer))
    return found


def _several(count: int, pair: tuple[str, str], lang: str) -> str:
    number = NUMBERS[lang][count - 1]
    if lang == "zh":
        return number + pair_name(pair, lang)
    return f"{number} {COLOURS[lang][pair[0]]} {_plural(NOUNS[lang][pair[1]])}"


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")
