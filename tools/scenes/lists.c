#include "lists.h"

#include "base/random.h"

#include <string.h>

const pd_color pd_colors[PD_N_COLORS] = {
    {"red", 0.86, 0.13, 0.13, true},     {"orange", 1.00, 0.55, 0.05, false},
    {"yellow", 1.00, 0.86, 0.10, false}, {"green", 0.13, 0.60, 0.22, true},
    {"blue", 0.13, 0.33, 0.87, true},    {"purple", 0.50, 0.16, 0.70, true},
    {"pink", 1.00, 0.52, 0.74, false},   {"black", 0.12, 0.12, 0.13, true},
};

const pd_noun pd_shapes[PD_N_SHAPES] = {
    {"circle", "circles"}, {"square", "squares"}, {"triangle", "triangles"}, {"star", "stars"},
    {"heart", "hearts"},   {"cross", "crosses"},  {"moon", "moons"},         {"ring", "rings"},
};

const pd_emoji pd_emoji_list[PD_N_EMOJI] = {
    {"🐶", "dog", "dogs", PD_ANIMAL},
    {"🐱", "cat", "cats", PD_ANIMAL},
    {"🐰", "rabbit", "rabbits", PD_ANIMAL},
    {"🐸", "frog", "frogs", PD_ANIMAL},
    {"🐷", "pig", "pigs", PD_ANIMAL},
    {"🐮", "cow", "cows", PD_ANIMAL},
    {"🐼", "panda", "pandas", PD_ANIMAL},
    {"🦁", "lion", "lions", PD_ANIMAL},
    {"🐧", "penguin", "penguins", PD_ANIMAL},
    {"🦆", "duck", "ducks", PD_ANIMAL},
    {"🐟", "fish", "fish", PD_ANIMAL},
    {"🐢", "turtle", "turtles", PD_ANIMAL},
    {"🐝", "bee", "bees", PD_ANIMAL},
    {"🦋", "butterfly", "butterflies", PD_ANIMAL},
    {"🍎", "apple", "apples", PD_FOOD},
    {"🍌", "banana", "bananas", PD_FOOD},
    {"🍋", "lemon", "lemons", PD_FOOD},
    {"🍓", "strawberry", "strawberries", PD_FOOD},
    {"🍒", "cherry", "cherries", PD_FOOD},
    {"🥕", "carrot", "carrots", PD_FOOD},
    {"🌽", "corn", "corn", PD_FOOD},
    {"🍞", "bread", "bread", PD_FOOD},
    {"🧀", "cheese", "cheese", PD_FOOD},
    {"🍕", "pizza", "pizzas", PD_FOOD},
    {"🎂", "cake", "cakes", PD_FOOD},
    {"🍩", "donut", "donuts", PD_FOOD},
    {"🚗", "car", "cars", PD_VEHICLE},
    {"🚌", "bus", "buses", PD_VEHICLE},
    {"🚲", "bike", "bikes", PD_VEHICLE},
    {"🚀", "rocket", "rockets", PD_VEHICLE},
    {"⛵", "boat", "boats", PD_VEHICLE},
    {"🚜", "tractor", "tractors", PD_VEHICLE},
    {"🚁", "helicopter", "helicopters", PD_VEHICLE},
    {"🏠", "house", "houses", PD_THING},
    {"🌲", "tree", "trees", PD_THING},
    {"🌵", "cactus", "cactuses", PD_THING},
    {"🌻", "sunflower", "sunflowers", PD_THING},
    {"🔥", "fire", "fires", PD_THING},
    {"⚽", "ball", "balls", PD_THING},
    {"🎸", "guitar", "guitars", PD_THING},
    {"🔑", "key", "keys", PD_THING},
    {"💡", "lamp", "lamps", PD_THING},
    {"⏰", "clock", "clocks", PD_THING},
    {"🔔", "bell", "bells", PD_THING},
    {"👑", "crown", "crowns", PD_THING},
    {"🎁", "gift", "gifts", PD_THING},
    {"🎈", "balloon", "balloons", PD_THING},
    {"🤖", "robot", "robots", PD_THING},
};

const pd_font pd_fonts[PD_N_FONTS] = {
    {"DejaVu Sans", "fonts-dejavu-core"},      {"DejaVu Serif", "fonts-dejavu-core"},
    {"DejaVu Sans Mono", "fonts-dejavu-core"}, {"Liberation Sans", "fonts-liberation"},
    {"Liberation Serif", "fonts-liberation"},  {"Liberation Mono", "fonts-liberation"},
    {"Open Sans", "fonts-open-sans"},          {"Comfortaa", "fonts-comfortaa"},
};
const pd_font pd_emoji_font = {"Noto Color Emoji", "fonts-noto-color-emoji"};

const char *const pd_places[PD_N_CELLS] = {"top left", "top",         "top right", "left",        "center",
                                           "right",    "bottom left", "bottom",    "bottom right"};
const char *const pd_place_phrases[PD_N_CELLS] = {
    "at the top left", "at the top",         "at the top right", "at the left",        "in the center",
    "at the right",    "at the bottom left", "at the bottom",    "at the bottom right"};

static const struct {
    const char *text;
    pd_word_class class_of;
} words[] = {
#define SIGN(text)  {text, PD_WORD_SIGN},
#define GOODS(text) {text, PD_WORD_GOODS},
#define NAME(text)  {text, PD_WORD_NAME},
#define CITY(text)  {text, PD_WORD_CITY},
    // clang-format off
    SIGN("OPEN") SIGN("CLOSED") SIGN("STOP") SIGN("EXIT") SIGN("SALE") SIGN("TAXI") SIGN("HOTEL") SIGN("CAFE")
    SIGN("BANK") SIGN("PARK") SIGN("SHOP") SIGN("SCHOOL") SIGN("FARM") SIGN("ZOO") SIGN("GYM") SIGN("POOL")
    SIGN("BEACH") SIGN("MUSIC") SIGN("FILM") SIGN("NEWS") SIGN("SPORT") SIGN("NORTH") SIGN("SOUTH") SIGN("EAST")
    SIGN("WEST") SIGN("PUSH") SIGN("PULL") SIGN("HOT") SIGN("COLD") SIGN("NEW") SIGN("OLD") SIGN("FAST")
    SIGN("SLOW") SIGN("QUIET") SIGN("DANGER") SIGN("SAFE") SIGN("FREE") SIGN("FULL") SIGN("EMPTY") SIGN("CLEAN")
    SIGN("DRY") SIGN("WET") SIGN("RIVER") SIGN("LAKE") SIGN("HILL") SIGN("FOREST") SIGN("SEA") SIGN("SAND")
    SIGN("WIND") SIGN("RAIN") SIGN("SNOW") SIGN("ICE") SIGN("STONE") SIGN("GOLD") SIGN("SILVER") SIGN("WOOD")
    SIGN("GARDEN") SIGN("STREET") SIGN("BRIDGE") SIGN("DOOR") SIGN("WINDOW") SIGN("CINEMA") SIGN("OFFICE") SIGN("ART")
    SIGN("GAME") SIGN("DANCE") SIGN("HELP") SIGN("HELLO") SIGN("THANKS") SIGN("TODAY") SIGN("NIGHT") SIGN("DAY")
    SIGN("SUN") SIGN("WORLD") SIGN("HOME") SIGN("LOVE") SIGN("HAPPY") SIGN("MAGIC") SIGN("POWER") SIGN("PEACE")
    SIGN("WATER") SIGN("WAIT") SIGN("GO") SIGN("WIN") SIGN("TEAM") SIGN("CLUB") SIGN("TOWER") SIGN("MUSEUM")
    SIGN("CIRCUS") SIGN("PLAZA") SIGN("MARKET") SIGN("BAKERY") SIGN("BARBER") SIGN("DOCTOR") SIGN("POLICE") SIGN("POST")
    GOODS("TEA") GOODS("MILK") GOODS("RICE") GOODS("SOUP") GOODS("SALAD") GOODS("JUICE") GOODS("COFFEE") GOODS("SUGAR")
    GOODS("SALT") GOODS("PASTA") GOODS("BEANS") GOODS("HONEY") GOODS("JAM") GOODS("BUTTER") GOODS("CREAM") GOODS("NUTS")
    GOODS("MEAT") GOODS("EGGS") GOODS("SOAP") GOODS("PEN") GOODS("PAPER") GOODS("BOOK") GOODS("CUP") GOODS("PLATE")
    GOODS("FORK") GOODS("SPOON") GOODS("KNIFE") GOODS("CHAIR") GOODS("TABLE") GOODS("HAT") GOODS("SHOES") GOODS("SHIRT")
    GOODS("COAT") GOODS("SOCKS") GOODS("GLOVES") GOODS("PEAR") GOODS("PLUM") GOODS("PEAS") GOODS("BAG") GOODS("TOY")
    NAME("ANNA") NAME("TOM") NAME("BEN") NAME("LISA") NAME("MARY") NAME("JOHN") NAME("PAUL") NAME("EMMA")
    NAME("LUCY") NAME("MAX") NAME("NINA") NAME("SAM") NAME("KATE") NAME("PETER") NAME("ADAM") NAME("EVA")
    NAME("NOAH") NAME("MIA") NAME("LEO") NAME("ROSA")
    CITY("ROME") CITY("PARIS") CITY("BERLIN") CITY("LONDON") CITY("OSLO") CITY("MADRID") CITY("VIENNA") CITY("TOKYO")
    CITY("LIMA") CITY("CAIRO") CITY("ATHENS") CITY("DUBLIN") CITY("PRAGUE") CITY("BOSTON") CITY("DELHI") CITY("SEOUL")
    // clang-format on
};

int pd_n_words(void) {
    return (int)(sizeof words / sizeof *words);
}

const char *pd_word(int word) {
    return words[word].text;
}

pd_word_class pd_word_class_of(int word) {
    return words[word].class_of;
}

const char *pd_article(const char *noun) {
    return strchr("aeiou", noun[0]) ? "an" : "a";
}

// Both are permutations of the shapes that nowhere agree: 3 and 5 are odd, and 2 * color = 3 has no solution
// modulo 8.
bool pd_pair_held_out(int color, int shape) {
    return shape == (3 * color + 5) % PD_N_SHAPES;
}

bool pd_pair_popular(int color, int shape) {
    return shape == (5 * color + 2) % PD_N_SHAPES;
}

bool pd_emoji_popular(int emoji) {
    return emoji % 4 == 0;
}

bool pd_word_held_out(int word) {
    return word % 12 == 7;
}

bool pd_number_held_out(int number) {
    uint64_t state = (uint64_t)number;
    return number >= 10 && pd_random_next(&state) % 10 == 0;
}
