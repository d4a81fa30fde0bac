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
    SIGN("open") SIGN("closed") SIGN("stop") SIGN("exit") SIGN("sale") SIGN("taxi") SIGN("hotel") SIGN("cafe")
    SIGN("bank") SIGN("park") SIGN("shop") SIGN("school") SIGN("farm") SIGN("zoo") SIGN("gym") SIGN("pool")
    SIGN("beach") SIGN("music") SIGN("film") SIGN("news") SIGN("sport") SIGN("north") SIGN("south") SIGN("east")
    SIGN("west") SIGN("push") SIGN("pull") SIGN("hot") SIGN("cold") SIGN("new") SIGN("old") SIGN("fast")
    SIGN("slow") SIGN("quiet") SIGN("danger") SIGN("safe") SIGN("free") SIGN("full") SIGN("empty") SIGN("clean")
    SIGN("dry") SIGN("wet") SIGN("river") SIGN("lake") SIGN("hill") SIGN("forest") SIGN("sea") SIGN("sand")
    SIGN("wind") SIGN("rain") SIGN("snow") SIGN("ice") SIGN("stone") SIGN("gold") SIGN("silver") SIGN("wood")
    SIGN("garden") SIGN("street") SIGN("bridge") SIGN("door") SIGN("window") SIGN("cinema") SIGN("office") SIGN("art")
    SIGN("game") SIGN("dance") SIGN("help") SIGN("hello") SIGN("thanks") SIGN("today") SIGN("night") SIGN("day")
    SIGN("sun") SIGN("world") SIGN("home") SIGN("love") SIGN("happy") SIGN("magic") SIGN("power") SIGN("peace")
    SIGN("water") SIGN("wait") SIGN("go") SIGN("win") SIGN("team") SIGN("club") SIGN("tower") SIGN("museum")
    SIGN("circus") SIGN("plaza") SIGN("market") SIGN("bakery") SIGN("barber") SIGN("doctor") SIGN("police") SIGN("post")
    GOODS("tea") GOODS("milk") GOODS("rice") GOODS("soup") GOODS("salad") GOODS("juice") GOODS("coffee") GOODS("sugar")
    GOODS("salt") GOODS("pasta") GOODS("beans") GOODS("honey") GOODS("jam") GOODS("butter") GOODS("cream") GOODS("nuts")
    GOODS("meat") GOODS("eggs") GOODS("soap") GOODS("pen") GOODS("paper") GOODS("book") GOODS("cup") GOODS("plate")
    GOODS("fork") GOODS("spoon") GOODS("knife") GOODS("chair") GOODS("table") GOODS("hat") GOODS("shoes") GOODS("shirt")
    GOODS("coat") GOODS("socks") GOODS("gloves") GOODS("pear") GOODS("plum") GOODS("peas") GOODS("bag") GOODS("toy")
    NAME("anna") NAME("tom") NAME("ben") NAME("lisa") NAME("mary") NAME("john") NAME("paul") NAME("emma")
    NAME("lucy") NAME("max") NAME("nina") NAME("sam") NAME("kate") NAME("peter") NAME("adam") NAME("eva")
    NAME("noah") NAME("mia") NAME("leo") NAME("rosa")
    CITY("rome") CITY("paris") CITY("berlin") CITY("london") CITY("oslo") CITY("madrid") CITY("vienna") CITY("tokyo")
    CITY("lima") CITY("cairo") CITY("athens") CITY("dublin") CITY("prague") CITY("boston") CITY("delhi") CITY("seoul")
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
