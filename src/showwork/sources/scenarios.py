"""The table of scenarios that `generator` draws word problems from, and its reader.

A family is a small state machine over one running quantity. A move without a source opens the problem; every
other move carries the quantity from its source state to its target state, so that any walk is a problem, and
the question asked is that of the state where the walk ends. The table's lines:

    # family (large) | nouns                 large: its quantities may be round thousands
    ? state | question | ...                 the questions of a state; only the first follows a single move
    ~ low high | fact                        a spare fact with a number {d} that nothing needs
    source>target slots | fact | ... = formula: solution line = ...

An indented line continues the one above. Bars part phrasings, one of which is taken. Slots name the new numbers,
a and b, with their kind (`generator.draw_slot`). A formula joins two of a, b, v (the quantity so far) and w (the
result of the line before in the same move); {eq} or {usd} is where the worked equation stands. N and M are two
names, x is the noun of the problem, and he, him, his are the pronouns of N. Every number is at least 2, so that
nouns are always plural. A move's place in its family is part of a problem's identity: add new ones at the end.
"""

import re
from dataclasses import dataclass

NAMES = {
    "she": ("Mia", "Anna", "Lily", "Emma", "Nora", "Zoe", "Ruth", "Ella", "Sara", "Kate"),
    "he": ("Tom", "Ben", "Leo", "Max", "Sam", "Omar", "Jack", "Noah", "Finn", "Paul"),
}
PRONOUNS = {
    "she": {"he": "she", "He": "She", "him": "her", "his": "her", "His": "Her"},
    "he": {"he": "he", "He": "He", "him": "him", "his": "his", "His": "His"},
}


@dataclass(frozen=True)
class Line:
    """A step of a solution: left and right are slot names, text has {eq} or {usd}."""

    left: str
    op: str
    right: str
    text: str


@dataclass(frozen=True)
class Move:
    """One fact of a problem and the lines that use it. place is its index in the family."""

    place: int
    source: str
    target: str
    slots: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Family:
    """asks: state -> its questions; spare: (lowest number, highest number, fact)."""

    name: str
    is_large: bool
    nouns: tuple[str, ...]
    asks: dict[str, tuple[str, ...]]
    spare: tuple[tuple[int, int, str], ...]
    moves: tuple[Move, ...]


def _parse_move(text: str, place: int) -> Move:
    head, *lines = re.split(r" = ", text)
    path, *facts = head.split(" | ")
    source, target, slots = re.fullmatch(r"(\w*)>(\w+) (.+)", path).groups()
    pairs = tuple(tuple(slot.split(":")) for slot in slots.split())
    parsed = tuple(Line(*re.fullmatch(r"([abvw])([-+*/])([abvw]): (.+)", line).groups()) for line in lines)
    return Move(place, source, target, pairs, tuple(facts), parsed)


def parse_family(text: str) -> Family:
    """Reads one paragraph of the table."""
    title, *rows = re.sub(r"\n +", " ", text).split("\n")
    name, _, nouns = title.removeprefix("# ").partition(" | ")
    asks = dict(row[2:].split(" | ", 1) for row in rows if row[0] == "?")
    spare = [re.fullmatch(r"~ (\d+) (\d+) \| (.+)", row).groups() for row in rows if row[0] == "~"]
    moves = [row for row in rows if row[0] not in "?~"]
    return Family(
        name=name.removesuffix(" (large)"),
        is_large=name.endswith(" (large)"),
        nouns=tuple(nouns.split(", ")),
        asks={state: tuple(questions.split(" | ")) for state, questions in asks.items()},
        spare=tuple((int(low), int(high), fact) for low, high, fact in spare + SPARE),
        moves=tuple(_parse_move(row, place) for place, row in enumerate(moves)),
    )


# Spare facts that fit every family.
SPARE = [
    (12, 35, "It is {d} degrees outside."),
    (4, 19, "{His} house has {d} windows."),
    (20, 60, "{He} is {d} years old."),
]

TABLE = """
# shopping | pens, books, shirts, toys
? cost | How much does {N} pay in total? | How many dollars does {N} spend in total?
? each | How much does each person pay in total?
~ 3 40 | The shop opened {d} years ago.
~ 4 30 | There are {d} other people in the shop.
>cost a:count b:price | {N} buys {a} {x} for ${b} each. | {N} buys {a} {x}. Each one costs ${b}.
  = a*b: The {x} cost {usd}.
>cost a:amount b:amount | {N} buys a hat for ${a} and a bag for ${b}. | {N} buys a ${a} hat and a bag that costs ${b}.
  = a+b: The hat and the bag cost {usd}.
>cost a:amount b:part | {N} buys a coat for ${a} and gets ${b} off. = a-b: The coat costs {usd}.
cost>cost a:amount | {He} also buys a lamp for ${a}. | Then {he} buys a lamp that costs ${a}.
  = v+a: With the lamp {he} pays {usd}.
cost>cost a:count b:price | {He} also buys {a} cups for ${b} each. | Then {he} buys {a} cups at ${b} each.
  = a*b: The cups cost {usd}. = v+w: With the cups {he} pays {usd}.
cost>cost a:part | The shop takes ${a} off the total. = v-a: The total falls to {usd}.
cost>each a:divisor | Then {a} people share the cost equally. = v/a: Each person pays {usd}.
each>each a:price | Each person also pays ${a} for lunch. = v+a: With lunch each person pays {usd}.

# change | muffins, tacos, rolls
? cost | How much does {N} pay in total? | How many dollars does {N} pay in total?
? change | How much change does {N} keep? | How much change does {N} have in the end?
? pocket | How much money is in the pocket now?
? child | How much money does each child get?
~ 3 20 | There are {d} people in line.
~ 5 25 | The cafe has {d} tables.
>change a:amount b:cash | {N} orders lunch for ${a} and pays with ${b}. | Lunch costs ${a}, and {N} pays with ${b}.
  = b-a: The change is {usd}.
>cost a:count b:price | {N} orders {a} {x} at ${b} each. | {N} orders {a} {x} that cost ${b} each.
  = a*b: The {x} cost {usd}.
>cost a:amount b:amount | {N} orders a soup for ${a} and a cake for ${b}. = a+b: The soup and the cake cost {usd}.
cost>cost a:price | {He} also orders a drink for ${a}. | {He} adds a drink for ${a}.
  = v+a: With the drink {he} pays {usd}.
cost>cost a:price | {He} gives a tip of ${a}. = v+a: With the tip {he} pays {usd}.
cost>change a:cash | {He} pays with ${a} and gets change. | {He} hands over ${a} and gets change.
  = a-v: The change is {usd}.
change>change a:part | {He} gives ${a} of the change to {M}. = v-a: That leaves {usd} of the change.
change>pocket a:amount | {He} puts the change in a pocket with ${a} in it. = v+a: The pocket holds {usd}.
change>child a:divisor | {He} shares the change equally among {a} children. = v/a: Each child gets {usd}.

# orchard | apples, pears, plums, lemons
? have | How many {x} does {N} have now? | How many {x} does {N} have in the end?
? box | How many {x} are in each box now?
? money | How much money does {N} get for the {x}?
~ 15 80 | The oldest tree is {d} years old.
~ 2 9 | The gate is {d} meters wide.
>have a:count b:each | {N} fills {a} baskets with {b} {x} each. | {N} picks {b} {x} from each of {a} trees.
  = a*b: {N} picks {eq} {x}.
>have a:amount b:amount | {N} picks {a} {x} in the morning and {b} in the evening. = a+b: {N} picks {eq} {x}.
have>have a:part | {He} gives {a} {x} to {M}. | {M} takes {a} of the {x}. = v-a: That leaves {eq} {x}.
have>have a:part | {He} throws away {a} bad {x}. = v-a: That leaves {eq} {x}.
have>have a:amount | Then {he} picks {a} more {x}. | {He} buys {a} more {x}. = v+a: Then {he} has {eq} {x}.
have>have a:count b:each | {He} also buys {a} bags with {b} {x} each.
  = a*b: The bags hold {eq} {x}. = v+w: Then {he} has {eq} {x}.
have>box a:divisor | {He} packs the {x} into {a} equal boxes. = v/a: Each box gets {eq} {x}.
box>box a:part | {He} takes {a} {x} out of each box. = v-a: Each box now has {eq} {x}.
have>money a:price | {He} sells all the {x} for ${a} each. = v*a: {He} gets {usd}.

# baking | cookies, muffins, rolls, pies
? have | How many {x} does {N} have now? | How many {x} are there in the end?
? box | How many full boxes does {N} have?
? money | How much money does {N} make in the end?
~ 3 25 | The oven is {d} years old.
~ 4 20 | The kitchen has {d} bowls.
>have a:count b:each | {N} bakes {a} trays of {b} {x}. | {N} bakes {a} trays with {b} {x} on each.
  = a*b: {N} bakes {eq} {x}.
>have a:amount b:amount | {N} bakes {a} {x} on Monday and {b} {x} on Tuesday. = a+b: {N} bakes {eq} {x}.
>have a:amount b:part | {N} bakes {a} {x} and burns {b}, which go to the dog. = a-b: That leaves {eq} {x}.
have>have a:part | The family eats {a} of the {x}. | {He} gives {a} of the {x} away. = v-a: That leaves {eq} {x}.
have>have a:amount | Then {he} bakes {a} more {x}. | At night {he} bakes {a} more {x}. = v+a: Then {he} has {eq} {x}.
have>box a:divisor | {He} puts the {x} into boxes of {a}. | {He} packs the {x} so that each box holds {a}.
  = v/a: {He} fills {eq} boxes.
box>box a:part | {He} gives {a} full boxes to {M}. = v-a: That leaves {eq} boxes.
box>money a:price | {He} sells each box for ${a}. = v*a: {He} gets {usd} for the boxes.
money>money a:part | {He} pays ${a} for sugar. = v-a: That leaves {usd}.

# savings (large) | camera, bike, phone, guitar
? have | How much money does {N} have now? | How many dollars does {N} have in the end?
? need | How much more money does {N} need?
? week | How much must {N} save each week?
? jar | How much money is in each jar?
~ 7 10 | The bank opens at {d} in the morning.
~ 2 15 | The bank is {d} km away.
>have a:count b:each | {N} saves ${b} each month for {a} months. | For {a} months {N} saves ${b} each month.
  = a*b: {N} saves {usd}.
>have a:amount b:amount | {N} saves ${a} in May and ${b} in June. | {N} has ${a} in the bank and earns ${b} more.
  = a+b: {N} has {usd}.
>have a:amount b:part | {N} has ${a} in the bank and spends ${b} on a trip. = a-b: {N} has {usd} left.
have>have a:amount | Then {M} gives {him} ${a}. = v+a: Then {he} has {usd}.
have>have a:part | {He} spends ${a} on a present. | A present costs {him} ${a}. = v-a: That leaves {usd}.
have>need a:more | {He} wants to buy a {x} for ${a}. = a-v: {He} still needs {usd}.
need>week a:divisor | {He} will save the rest in {a} weeks, the same each week. = v/a: Each week {he} saves {usd}.
have>jar a:divisor | {He} splits the money equally among {a} jars. = v/a: Each jar gets {usd}.

# travel
? far | How many km does {N} travel in total? | How far does {N} travel in km?
? left | How many km of the trip are left?
? speed | How many km does {N} travel each hour?
? next | How many km does {N} travel the next day?
? day | How many km must {N} travel each day?
~ 3 20 | {His} bag weighs {d} kg.
~ 2 9 | {He} carries {d} bottles of water.
>far a:hours b:each | {N} travels {b} km each hour for {a} hours. | For {a} hours {N} travels {b} km each hour.
  = a*b: {N} travels {eq} km.
>far a:amount b:amount | {N} travels {a} km on Monday and {b} km on Tuesday. = a+b: {N} travels {eq} km.
>speed a:dividend b:divisor | {N} travels {a} km in {b} hours, the same each hour.
  = a/b: Each hour {N} travels {eq} km.
>left a:amount b:part | {N} has done {b} km of a trip of {a} km. = a-b: There are {eq} km left.
far>far a:amount | After a rest {he} travels {a} more km. = v+a: In total {he} travels {eq} km.
far>far a:hours b:each | The next day {he} travels {b} km each hour for {a} hours.
  = a*b: The next day {he} travels {eq} km. = v+w: In total {he} travels {eq} km.
far>left a:more | The whole trip is {a} km long. | {He} wants to travel {a} km in all. = a-v: There are {eq} km left.
left>left a:part | Then {he} travels {a} km more. = v-a: Then {eq} km are left.
left>day a:divisor | {He} wants to finish in {a} days, the same each day. = v/a: Each day {he} travels {eq} km.
speed>next a:hours | The next day {he} travels at this speed for {a} hours. = v*a: The next day {he} travels {eq} km.
next>next a:amount | On the same day {he} travels {a} km more. = v+a: In all {he} travels {eq} km.

# reading
? read | How many pages does {N} read in total? | How many pages has {N} read in the end?
? left | How many pages are left in the book?
? each | How many pages must {N} read each day?
? days | How many more days does {N} need?
~ 5 40 | The book has {d} pictures.
~ 6 30 | The book costs ${d}.
>read a:days b:each | {N} reads {b} pages each day for {a} days.
  | For {a} days {N} reads {b} pages of a book each day.
  = a*b: {N} reads {eq} pages.
>read a:amount b:amount | {N} reads {a} pages of a book on Monday and {b} on Tuesday. = a+b: {N} reads {eq} pages.
>left a:amount b:part | {N} reads {b} pages of a book with {a} pages.
  | A book has {a} pages, and {N} reads {b} of them.
  = a-b: {eq} pages are left.
read>read a:amount | On Sunday {he} reads {a} more pages. = v+a: Then {he} has read {eq} pages.
read>read a:count b:each | Then {he} reads {a} chapters of {b} pages each.
  = a*b: The chapters have {eq} pages. = v+w: In total {he} reads {eq} pages.
read>left a:more | The whole book has {a} pages. | There are {a} pages in the whole book. = a-v: {eq} pages are left.
left>left a:part | At night {he} reads {a} more pages. = v-a: Then {eq} pages are left.
left>each a:divisor | {He} wants to finish in {a} days, the same each day. = v/a: Each day {he} reads {eq} pages.
left>days a:divisor | From now on {he} reads {a} pages a day. = v/a: {He} needs {eq} days.

# classroom | pencils, crayons, stickers
? kids | How many students are in class now? | How many students are in class in the end?
? group | How many students are in each group?
? need | How many {x} must {N} buy?
? packs | How many packs must {N} buy?
~ 11 90 | The school is {d} years old.
~ 3 16 | The room has {d} lamps.
>kids a:few b:few | {N} teaches {a} boys and {b} girls. | There are {a} boys and {b} girls in {N}'s class.
  = a+b: There are {eq} students.
>kids a:count b:count | {N} has a class with {a} tables of {b} students. | {N} teaches {a} rows of {b} students.
  = a*b: There are {eq} students.
kids>kids a:few | Then {a} new students join the class. = v+a: Then there are {eq} students.
kids>kids a:part | Then {a} students go home. | Then {a} sick students go home.
  = v-a: That leaves {eq} students.
kids>group a:divisor | {N} splits the students in class into {a} equal groups. = v/a: Each group has {eq} students.
kids>need a:count | {N} wants to give each student in class {a} {x}.
  | Each student in class needs {a} {x}.
  = v*a: The students need {eq} {x}.
need>need a:part | {N} already has {a} {x}. = v-a: {N} still needs {eq} {x}.
need>packs a:divisor | The {x} come in packs of {a}. = v/a: {N} needs {eq} packs.

# sharing | candies, nuts, grapes, marbles
? have | How many {x} does {N} have now? | How many {x} does {N} have in the end?
? each | How many {x} does each friend have now?
~ 3 40 | The park has {d} trees.
~ 2 9 | A bus ride home costs ${d}.
>each a:dividend b:divisor | {N} shares {a} {x} equally among {b} friends.
  | {N} deals out {a} {x} equally to {b} friends.
  = a/b: Each friend gets {eq} {x}.
>have a:count b:each | {N} opens {a} bags of {b} {x}. | {N} buys {a} bags with {b} {x} in each bag.
  = a*b: {N} has {eq} {x}.
>have a:amount b:amount | {N} has {a} {x} and finds {b} more. = a+b: {N} has {eq} {x}.
have>have a:part | {He} loses {a} of the {x}. | {He} gives {a} {x} to {M}. = v-a: That leaves {eq} {x}.
have>have a:amount | Then {M} gives {him} {a} {x}. = v+a: Then {he} has {eq} {x}.
have>each a:divisor | {He} shares all the {x} equally among {a} friends. = v/a: Each friend gets {eq} {x}.
each>each a:few | Each friend had {a} {x} before. | Each friend then finds {a} more {x}.
  = v+a: Each friend now has {eq} {x}.
each>each a:part | Then each friend loses {a} {x}. = v-a: Each friend keeps {eq} {x}.

# collection | cards, stamps, coins, shells
? other | How many {x} does {M} have now?
? both | How many {x} do they have together now?
? box | How many {x} are in each box?
~ 40 95 | The oldest of the {x} is worth ${d}.
~ 2 9 | {N} began to collect {d} years ago.
>other a:each b:factor | {N} has {a} {x}, and {M} has {b} times as many.
  | {M} has {b} times as many {x} as {N}, who has {a}.
  = a*b: {M} has {eq} {x}.
>other a:amount b:amount | {N} has {a} {x}, and {M} has {b} more {x} than {N}. = a+b: {M} has {eq} {x}.
>other a:amount b:part | {N} has {a} {x}, and {M} has {b} fewer {x} than {N}. = a-b: {M} has {eq} {x}.
>both a:amount b:amount | {N} has {a} {x}, and {M} has {b} {x}. = a+b: They have {eq} {x}.
>both a:each b:factor | {N} has {a} {x}, and {M} has {b} times as many.
  = a*b: {M} has {eq} {x}. = a+w: Together they have {eq} {x}.
>both a:amount b:amount | {N} has {a} {x}, and {M} has {b} more {x} than {N}.
  = a+b: {M} has {eq} {x}. = a+w: Together they have {eq} {x}.
other>other a:part | Then {M} loses {a} {x}. | Then {M} sells {a} {x}. = v-a: That leaves {eq} {x}.
other>other a:amount | Later {M} finds {a} more {x}. = v+a: Then {M} has {eq} {x}.
both>both a:part | They sell {a} of their {x}. = v-a: That leaves {eq} {x}.
both>both a:amount | They find {a} more {x}. = v+a: Then they have {eq} {x}.
other>box a:divisor | {M} puts these {x} into {a} equal boxes. = v/a: Each box holds {eq} {x}.
both>box a:divisor | They put all their {x} into {a} equal boxes. = v/a: Each box holds {eq} {x}.

# garden | roses, tulips, carrots, onions
? have | How many {x} are in the garden now? | How many {x} are in the garden in the end?
? bunch | How many bunches does {N} have?
? money | How much money does {N} get?
? water | How many cups of water does {N} need?
~ 5 40 | The garden is {d} meters long.
~ 3 11 | The sun shines for {d} hours.
>have a:count b:each | {N} plants {a} rows of {b} {x}. | {N} plants {a} rows with {b} {x} in each row.
  = a*b: {N} plants {eq} {x}.
>have a:amount b:amount | {N} plants {a} {x} on one day and {b} on the next. = a+b: {N} plants {eq} {x}.
have>have a:amount | Then {he} plants {a} more {x}. = v+a: Then there are {eq} {x}.
have>have a:part | Rabbits eat {a} of the {x}. | A storm ruins {a} of the {x}. = v-a: That leaves {eq} {x}.
have>have a:count b:each | {He} adds {a} rows with {b} {x} each.
  = a*b: The new rows have {eq} {x}. = v+w: Then there are {eq} {x}.
have>bunch a:divisor | {He} picks all the {x} and makes bunches of {a}. = v/a: {He} makes {eq} bunches.
bunch>bunch a:part | {He} gives {a} bunches to {M}. = v-a: That leaves {eq} bunches.
bunch>money a:price | {He} sells each bunch for ${a}. = v*a: {He} gets {usd}.
have>water a:factor | Each of the {x} left in the garden needs {a} cups of water. = v*a: They need {eq} cups.

# wages
? earn | How much money does {N} earn in total? | How many dollars does {N} earn in total?
? left | How much of this money does {N} have left?
? week | How much can {N} spend each week?
? rate | How much does {N} earn each hour now?
? next | How much does {N} earn next week?
~ 2 25 | {He} lives {d} km from work.
~ 3 30 | The office has {d} rooms.
>earn a:hours b:price | {N} works {a} hours for ${b} an hour. | {N} earns ${b} an hour and works {a} hours.
  = a*b: {N} earns {usd}.
>earn a:amount b:amount | {N} earns ${a} on Monday and ${b} on Friday. = a+b: {N} earns {usd}.
>rate a:dividend b:divisor | {N} earns ${a} for {b} hours of work. | For {b} hours of work {N} gets ${a}.
  = a/b: {N} earns {usd} each hour.
earn>earn a:price | {He} also gets a bonus of ${a}. = v+a: With the bonus it is {usd}.
earn>earn a:hours b:price | On Sunday {he} works {a} hours for ${b} an hour.
  = a*b: On Sunday {he} earns {usd}. = v+w: In total {he} earns {usd}.
earn>left a:part | {He} pays ${a} for the train. | The train costs {him} ${a}. = v-a: That leaves {usd}.
left>left a:part | {He} spends ${a} on food. = v-a: That leaves {usd}.
left>week a:divisor | The rest must last {a} weeks, the same each week. = v/a: Each week {he} spends {usd}.
earn>week a:divisor | The money must last {a} weeks, the same each week. = v/a: Each week {he} spends {usd}.
rate>rate a:price | Then {his} pay goes up by ${a} an hour. = v+a: The new pay is {usd}.
rate>next a:hours | Next week {he} works {a} hours at this pay. = v*a: Next week {he} earns {usd}.
next>next a:price | Next week {he} also gets a bonus of ${a}. = v+a: With it {he} earns {usd}.

# parking
? cars | How many cars are in {N}'s lot now? | How many cars are there in the end?
? free | How many spaces are free in the lot?
? money | How much money do the cars bring in?
? worker | How much money does each worker get?
~ 2 9 | The lot is {d} km from the station.
~ 3 30 | The lot has {d} trees.
>cars a:few b:few | {N} counts {a} red cars and {b} blue cars in {his} lot.
  | {N}'s lot has {a} red cars and {b} blue cars.
  = a+b: There are {eq} cars.
>cars a:count b:count | {N} counts {a} rows of {b} cars in {his} lot.
  | {N}'s lot has {a} rows with {b} cars in each row.
  = a*b: There are {eq} cars.
>free a:amount b:part | {N}'s lot has {a} spaces, and {b} of them are full. = a-b: {eq} spaces are free.
cars>cars a:few | Then {a} more cars drive in. | Then {a} new cars come. = v+a: Then there are {eq} cars.
cars>cars a:part | Then {a} cars leave. | Then {a} of the cars drive away. = v-a: That leaves {eq} cars.
cars>free a:more | The lot has {a} spaces in all. = a-v: {eq} spaces are free.
free>free a:part | Then {a} more cars fill a space each. = v-a: Then {eq} spaces are free.
cars>money a:price | Each car there now pays ${a}. = v*a: The cars pay {usd}.
money>worker a:divisor | This money is shared equally by {a} workers. = v/a: Each worker gets {usd}.

# fuel
? have | How many liters of fuel does {N} have now? | How many liters of fuel does {N} have in the end?
? money | How much money does {N} get for the fuel?
? days | For how many days does the fuel last?
~ 2 20 | The truck is {d} years old.
~ 2 5 | The truck has {d} seats.
>have a:count b:each | {N} fills {a} cans with {b} liters of fuel each.
  | {N} buys {a} cans of fuel with {b} liters in each.
  = a*b: {N} has {eq} liters.
>have a:amount b:amount | {N} buys {a} liters of fuel on Monday and {b} liters on Friday. = a+b: {N} has {eq} liters.
>have a:amount b:part | {N} has {a} liters of fuel and uses {b} liters. = a-b: {N} has {eq} liters left.
have>have a:part | A long trip uses {a} liters. | {He} gives {a} liters to {M}. = v-a: That leaves {eq} liters.
have>have a:amount | Then {he} buys {a} more liters. | {M} gives {him} {a} more liters.
  = v+a: Then {he} has {eq} liters.
have>have a:count b:each | {He} makes {a} trips that use {b} liters each.
  = a*b: The trips use {eq} liters. = v-w: That leaves {eq} liters.
have>money a:price | Now {he} sells all {his} fuel for ${a} a liter. = v*a: {He} gets {usd}.
have>days a:divisor | From now on {he} uses {a} liters a day. = v/a: The fuel lasts {eq} days.

# tank (large)
? have | How many liters of water are in the tank now? | How many liters are in the tank in the end?
? need | How many more liters does {N} need to fill the tank?
? time | How many minutes does it take to fill the tank?
? pool | How many liters of water go into each pool?
~ 2 9 | The tank is {d} meters high.
~ 3 40 | The tank is {d} years old.
>have a:count b:each | {N} pumps {b} liters of water a minute into an empty tank for {a} minutes.
  = a*b: The tank has {eq} liters.
>have a:amount b:amount | {N}'s tank has {a} liters of water, and rain adds {b} liters.
  | {N} puts {a} liters of water into a tank with {b} liters in it.
  = a+b: The tank has {eq} liters.
>have a:amount b:part | {N}'s tank has {a} liters of water, and {b} liters leak out. = a-b: {eq} liters are left.
have>have a:part | {He} uses {a} liters for the garden. | The cows drink {a} liters. = v-a: That leaves {eq} liters.
have>have a:amount | Then {he} adds {a} liters. | At night rain adds {a} more liters. = v+a: Then there are {eq} liters.
have>need a:more | The full tank holds {a} liters. | The tank is full at {a} liters. = a-v: {He} needs {eq} more liters.
need>time a:divisor | A pump adds {a} liters each minute. = v/a: It takes {eq} minutes.
have>pool a:divisor | {He} lets all the water flow equally into {a} pools. = v/a: Each pool gets {eq} liters.

# party | balloons, cups, plates, hats
? guests | How many guests are at the party now? | How many guests are at the party in the end?
? tables | How many full tables are there?
? need | How many {x} must {N} buy?
? packs | How many packs must {N} buy?
? cost | How much does {N} pay for the {x}?
~ 2 6 | The party starts at {d} in the afternoon.
~ 10 30 | {N} plays {d} songs at the party.
>guests a:few b:few | {a} friends and {b} cousins come to {N}'s party. = a+b: There are {eq} guests.
>guests a:count b:count | {N} has {a} tables of {b} guests at a party.
  | {N}'s party has {a} tables with {b} guests each.
  = a*b: There are {eq} guests.
>guests a:few b:part | {N} invites {a} guests to a party, but {b} do not come. = a-b: {eq} guests come.
guests>guests a:few | Then {a} more guests come. = v+a: Then there are {eq} guests.
guests>guests a:part | Then {a} guests go home. | Later {a} of the guests leave.
  = v-a: That leaves {eq} guests.
guests>tables a:divisor | The guests there fill tables of {a}. | Now the guests sit down, {a} at each table.
  = v/a: They fill {eq} tables.
guests>need a:factor | {N} wants to give each guest there {a} {x}. | Each guest now there needs {a} {x}.
  = v*a: The guests need {eq} {x}.
need>need a:part | {N} already has {a} {x}. = v-a: {N} still needs {eq} {x}.
need>packs a:divisor | The {x} come in packs of {a}. = v/a: {N} needs {eq} packs.
packs>cost a:price | Each pack costs ${a}. = v*a: {N} pays {usd}.

# library (large)
? books | How many books are in the library now? | How many books does the library have in the end?
? shelf | How many books are on each shelf now?
~ 4 40 | The library has {d} chairs.
~ 7 10 | The library opens at {d} in the morning.
>books a:count b:each | {N} fills {a} shelves of an empty library with {b} books each.
  = a*b: The shelves hold {eq} books.
>books a:amount b:amount | {N}'s library has {a} old books and {b} new books.
  | {N}'s library has {a} books and buys {b} more.
  = a+b: The library has {eq} books.
>books a:amount b:part | {N}'s library has {a} books and lends out {b} of them. = a-b: {eq} books are left.
books>books a:part | Then readers take {a} books home. | {N} gives {a} books away. = v-a: That leaves {eq} books.
books>books a:amount | Then {a} new books come. | {M} brings {a} more books. = v+a: Then there are {eq} books.
books>books a:count b:each | Then {a} schools take {b} books each.
  = a*b: The schools take {eq} books. = v-w: That leaves {eq} books.
books>shelf a:divisor | Then {N} moves the library's books to {a} equal shelves. = v/a: Each shelf gets {eq} books.
shelf>shelf a:amount | Then {N} adds {a} books to each shelf. = v+a: Each shelf now has {eq} books.
shelf>shelf a:part | Then {N} takes {a} books off each shelf. = v-a: Each shelf now has {eq} books.

# eggs (large)
? have | How many eggs does {N} have now? | How many eggs does {N} have in the end?
? box | How many full boxes does {N} have?
? money | How much money does {N} get for the boxes?
~ 2 9 | The farm has {d} cows.
~ 3 30 | The farm is {d} km from town.
>have a:days b:each | {N} collects {b} eggs a day for {a} days. | For {a} days {N} collects {b} eggs each day.
  = a*b: {N} collects {eq} eggs.
>have a:amount b:amount | {N} collects {a} brown eggs and {b} white eggs on a farm. = a+b: {N} has {eq} eggs.
>have a:amount b:part | {N} collects {a} eggs on a farm and gives {b} of them away. = a-b: That leaves {eq} eggs.
have>have a:part | {He} sells {a} eggs in town. | {He} uses {a} eggs for cakes. = v-a: That leaves {eq} eggs.
have>have a:amount | {M} brings {him} {a} more eggs. | Then {he} collects {a} more eggs. = v+a: Then {he} has {eq} eggs.
have>box a:divisor | {He} packs all the eggs into boxes of {a}. | {He} puts the eggs into boxes that hold {a} each.
  = v/a: {He} fills {eq} boxes.
box>box a:part | {He} gives {a} full boxes to {M}. = v-a: That leaves {eq} boxes.
box>money a:price | {He} sells each box for ${a}. | Each box sells for ${a}. = v*a: {He} gets {usd}.

# animals
? have | How many sheep and goats does {N} have now? | How many sheep and goats does {N} have in all?
? pen | How many animals are in each pen?
? food | How many kg of food do the animals eat each week?
? need | How many kg of food must {N} buy?
~ 4 40 | The barn is {d} meters long.
~ 3 30 | The farm is {d} km from town.
>have a:few b:few | {N} has {a} sheep and {b} goats on a farm. | {N}'s farm has {a} sheep and {b} goats.
  = a+b: There are {eq} animals.
>have a:few b:factor | {N} has {a} sheep and {b} times as many goats.
  = a*b: There are {eq} goats. = a+w: There are {eq} animals.
>have a:few b:few | {N} has {a} sheep and {b} more goats than sheep.
  = a+b: There are {eq} goats. = a+w: There are {eq} animals.
have>have a:few | {He} buys {a} more sheep. | Then {a} new goats are born. = v+a: Then there are {eq} animals.
have>have a:part | {He} sells {a} of the animals to {M}. | {M} buys {a} of the animals. = v-a: That leaves {eq} animals.
have>pen a:divisor | {He} puts all the animals into {a} equal pens. = v/a: Each pen has {eq} animals.
have>food a:count | Now each animal eats {a} kg of food a week. = v*a: They eat {eq} kg.
food>need a:part | For one week {he} already has {a} kg of food. = v-a: {He} must buy {eq} kg.

# points
? points | How many points does {N} have now? | How many points does {N} have in the end?
? lead | By how many points is {M} ahead of {N}?
? prizes | How many prizes does {N} get?
? game | How many points does {N} score in each game?
? next | How many points does {N} score in the next game?
~ 4 30 | {N} wears a shirt with the number {d}.
~ 11 90 | There are {d} fans at the games.
>points a:count b:each | {N} scores {b} points in each of {a} games.
  | {N} plays {a} games and scores {b} points in each.
  = a*b: {N} scores {eq} points.
>points a:amount b:amount | {N} scores {a} points in the first game and {b} points in the next.
  = a+b: {N} scores {eq} points.
>game a:dividend b:divisor | {N} scores {a} points in {b} games, the same in each.
  = a/b: {N} scores {eq} points in each game.
points>points a:amount | In the last game {he} scores {a} points. | Then {he} wins {a} more points.
  = v+a: Then {he} has {eq} points.
points>points a:part | For a mistake {he} loses {a} points. | Then {he} loses {a} points.
  = v-a: That leaves {eq} points.
points>points a:count b:each | Then {he} wins {a} rounds for {b} points each.
  = a*b: The rounds bring {eq} points. = v+w: Then {he} has {eq} points.
points>lead a:more | In the end {M} has {a} points. | {M} ends with {a} points. = a-v: {M}'s lead is {eq} points.
points>prizes a:divisor | {He} trades all {his} points for prizes at {a} points each. = v/a: {He} gets {eq} prizes.
game>next a:amount | In the next game {he} scores {a} points more. = v+a: In the next game {he} scores {eq} points.
game>next a:factor | In the next game {he} scores {a} times as many points.
  = v*a: In the next game {he} scores {eq} points.

# bus
? passengers | How many passengers are on the bus now? | How many passengers are on the bus in the end?
? free | How many seats are free on the bus?
? van | How many passengers ride in each van?
? money | How much money do the passengers pay in total?
~ 2 20 | The bus is {d} years old.
~ 4 30 | The bus is {d} meters from the bridge.
>passengers a:few b:few | {N} drives a bus with {a} passengers, and {b} more get on. = a+b: There are {eq} passengers.
>passengers a:few b:part | {N} drives a bus with {a} passengers, and {b} of them get off. = a-b: {eq} passengers stay.
>passengers a:count b:count | {N} drives a bus with {a} rows of {b} passengers. = a*b: There are {eq} passengers.
passengers>passengers a:few | At the next stop {a} passengers get on. | At the school {a} passengers get on.
  = v+a: Then there are {eq} passengers.
passengers>passengers a:part | At the market {a} passengers get off. | Then {a} passengers get off.
  = v-a: That leaves {eq} passengers.
passengers>free a:more | The bus has {a} seats, one for each passenger. = a-v: {eq} seats are free.
passengers>van a:divisor | At the station all these passengers change to {a} equal vans.
  = v/a: Each van has {eq} passengers.
passengers>money a:price | Now each passenger on the bus pays ${a}. = v*a: They pay {usd}.

# beads | beads, pearls, buttons
? used | How many {x} does {N} use in total?
? left | How many {x} are left? | How many {x} does {N} have left?
? rings | How many rings does {N} have?
? money | How much money does {N} get for the rings?
~ 3 20 | The {x} have {d} colors.
~ 2 9 | The shop opened {d} years ago.
>used a:count b:each | {N} makes {a} chains with {b} {x} each. | {N} uses {b} {x} for each of {a} chains.
  = a*b: {N} uses {eq} {x}.
>used a:amount b:amount | {N} makes a chain with {a} {x} and a hat with {b} {x}. = a+b: {N} uses {eq} {x}.
>left a:amount b:part | {N} has {a} {x} and uses {b} of them for a chain. = a-b: {eq} {x} are left.
>rings a:dividend b:divisor | {N} has {a} {x} and makes rings with {b} {x} each. = a/b: {N} makes {eq} rings.
used>used a:amount | {He} also uses {a} {x} for a bag. = v+a: Then {he} uses {eq} {x}.
used>left a:more | At the start {he} had {a} {x}. | {He} takes the {x} from a box of {a}. = a-v: {eq} {x} are left.
left>left a:part | Then {he} loses {a} {x}. | {He} gives {a} of the other {x} to {M}. = v-a: That leaves {eq} {x}.
left>rings a:divisor | With the rest {he} makes rings of {a} {x} each. = v/a: {He} makes {eq} rings.
rings>rings a:part | {He} gives {a} rings to {M}. = v-a: That leaves {eq} rings.
rings>money a:price | {He} sells each ring for ${a}. = v*a: {He} gets {usd}.

# boxes (large)
? boxes | How many boxes are in the store now? | How many boxes are there in the end?
? shop | How many boxes does each shop have now?
~ 2 9 | The store has {d} doors.
~ 12 60 | Each box weighs {d} kg.
>boxes a:count b:each | {N} unloads {a} trucks with {b} boxes each at an empty store.
  = a*b: The trucks bring {eq} boxes.
>boxes a:amount b:amount | {N}'s store has {a} small boxes and {b} large boxes.
  | {N} has {a} boxes in a store and unloads {b} more.
  = a+b: The store has {eq} boxes.
boxes>boxes a:part | {He} sends away {a} boxes. | A truck takes {a} boxes away. = v-a: That leaves {eq} boxes.
boxes>boxes a:amount | A train brings {a} more boxes. | Then {a} new boxes come. = v+a: Then there are {eq} boxes.
boxes>boxes a:count b:each | Then {a} trucks take away {b} boxes each.
  = a*b: The trucks take {eq} boxes. = v-w: That leaves {eq} boxes.
boxes>shop a:divisor | {He} sends the boxes in the store equally to {a} shops. = v/a: Each shop gets {eq} boxes.
shop>shop a:part | Then each shop sells {a} boxes. = v-a: Each shop keeps {eq} boxes.
shop>shop a:amount | Each shop had {a} boxes before. = v+a: Each shop now has {eq} boxes.

# tickets (large)
? sold | How many tickets are sold in total? | How many tickets has {N} sold in the end?
? left | How many tickets are left?
? money | How much money do the tickets bring in?
? singer | How much money does each singer get?
~ 2 9 | The show lasts {d} hours.
~ 3 30 | The band has {d} songs.
>sold a:amount b:amount | {N} sells {a} tickets on Friday and {b} tickets on Sunday. = a+b: {N} sells {eq} tickets.
>sold a:days b:each | {N} sells {b} tickets for a show each day for {a} days.
  | For {a} days {N} sells {b} tickets a day.
  = a*b: {N} sells {eq} tickets.
>left a:amount b:part | {N} has {a} tickets for a show and sells {b} of them. = a-b: {eq} tickets are left.
sold>sold a:count b:each | Then {a} groups buy {b} tickets each. | Then {he} sells {b} tickets to each of {a} groups.
  = a*b: The groups buy {eq} tickets. = v+w: Then {eq} tickets are sold.
sold>sold a:amount | On Monday {he} sells {a} more tickets. | Then {he} sells {a} more.
  = v+a: Then {eq} tickets are sold.
sold>left a:more | There are {a} tickets in all. | The hall has {a} seats, one for each ticket.
  = a-v: {eq} tickets are left.
left>left a:part | At the door {he} sells {a} more tickets. = v-a: Then {eq} tickets are left.
sold>money a:price | Each of the sold tickets costs ${a}. = v*a: The tickets cost {usd}.
money>singer a:divisor | This money is shared equally by {a} singers. = v/a: Each singer gets {usd}.
"""

FAMILIES = {family.name: family for family in map(parse_family, TABLE.strip().split("\n\n"))}
