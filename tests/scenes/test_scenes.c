// The program `scenes` from outside: its pictures, its JSON, its manners. Takes the program's path from
// PD_SCENES.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../checks.h"
#include "answer.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

enum { MAX_PATH = 800, MAX_HELD_OUT = 400 };

static char folder[256];

// ---- running ----------------------------------------------------------------------------------------------

static void in_folder(char path[MAX_PATH], const char *name) {
    snprintf(path, MAX_PATH, "%s/%.400s", folder, name);
}

// Starts `scenes` with these arguments, separated by spaces, in the folder; its files may not grow beyond
// `limit` bytes (0: as they like).
static pid_t start(const char *arguments, rlim_t limit) {
    const pid_t child = fork();
    if (child != 0) return child;
    char words[1024], *argv[64] = {(char *)(uintptr_t)PD_SCENES};
    snprintf(words, sizeof words, "%s", arguments);
    int n = 1;
    for (char *word = strtok(words, " "); word && n < 63; word = strtok(NULL, " "))
        argv[n++] = word;
    if (chdir(folder) != 0 || !freopen("out", "w", stdout) || !freopen("err", "w", stderr)) _exit(99);
    const struct rlimit bound = {limit, limit};
    if (limit && setrlimit(RLIMIT_FSIZE, &bound) != 0) _exit(99);
    execv(PD_SCENES, argv);
    _exit(99);
}

static int finish(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static char *read_text(const char *name, size_t *size) {
    char path[MAX_PATH];
    in_folder(path, name);
    pd_mapped_file file;
    pd_error err;
    if (pd_mapped_file_open(path, &file, &err) != PD_OK) fail_msg("%s", err.message);
    char *text = malloc(file.size + 1);
    if (file.size) memcpy(text, file.data, file.size);
    text[file.size] = '\0';
    if (size) *size = file.size;
    pd_mapped_file_close(&file);
    return text;
}

// Expects exit code 0 and nothing on stderr.
static void run(const char *arguments) {
    const int code = finish(start(arguments, 0));
    char *err = read_text("err", NULL);
    if (code != 0 || err[0]) fail_msg("scenes %s: exit code %d: %s", arguments, code, err);
    free(err);
}

// Expects this exit code, and one line on stderr with `fragment` in it.
static void expect(int expected, const char *fragment, const char *arguments, rlim_t limit) {
    const int code = finish(start(arguments, limit));
    char *err = read_text("err", NULL);
    if (code != expected || !strstr(err, fragment) || strncmp(err, "scenes: ", 8) != 0 ||
        strchr(err, '\n') != err + strlen(err) - 1)
        fail_msg("scenes %s: expected exit code %d and a line with \"%s\", found %d and \"%s\"", arguments,
                 expected, fragment, code, err);
    free(err);
}

static bool exists(const char *name) {
    char path[MAX_PATH];
    in_folder(path, name);
    return access(path, F_OK) == 0;
}

static yyjson_doc *read_json(const char *name) {
    char path[MAX_PATH];
    in_folder(path, name);
    yyjson_read_err error;
    yyjson_doc *doc = yyjson_read_file(path, 0, NULL, &error);
    if (!doc) fail_msg("%s: %s", name, error.msg);
    return doc;
}

static const char *get(yyjson_val *object, const char *key) {
    const char *text = yyjson_get_str(yyjson_obj_get(object, key));
    return text ? text : "";
}

// Turn t of a record: the question or the answer.
static const char *turn(yyjson_val *record, size_t t) {
    const char *text = get(yyjson_arr_get(yyjson_obj_get(record, "conversations"), t), "value");
    return strncmp(text, "<image>\n", 8) == 0 ? text + 8 : text;
}

static void assert_same_file(const char *a, const char *b) {
    size_t a_size, b_size;
    char *a_text = read_text(a, &a_size), *b_text = read_text(b, &b_size);
    if (a_size != b_size || memcmp(a_text, b_text, a_size) != 0) fail_msg("%s and %s differ", a, b);
    free(a_text);
    free(b_text);
}

// ---- what is held out -------------------------------------------------------------------------------------

static char held_out[MAX_HELD_OUT][32];
static int n_held_out;

static void list_held_out(void) {
    if (n_held_out) return;
    run("--list-held-out");
    char *text = read_text("out", NULL);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(n_held_out < MAX_HELD_OUT);
        snprintf(held_out[n_held_out++], sizeof *held_out, "%s", line);
    }
    free(text);
    assert_true(n_held_out > 100);
}

// Whether `word` stands in the text as a word of its own (or as its plural).
static bool has_word(const char *text, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
        static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        const char *behind = at + length;
        if (at > text && strchr(letters, at[-1])) continue;
        if (strncmp(behind, "es", 2) == 0)
            behind += 2;
        else if (*behind == 's')
            behind++;
        if (!*behind || !strchr(letters, *behind)) return true;
    }
    return false;
}

// What is held out and named in these texts; NULL for nothing. `together`: a pair's words may stand apart,
// the colour in one text and the shape in the other.
static const char *find_held_out(const char *question, const char *answer, bool together) {
    char both[512];
    snprintf(both, sizeof both, "%s %s", question, answer);
    for (int i = 0; i < n_held_out; i++) {
        const char *gap = strchr(held_out[i], ' ');
        if (!gap || !together) {
            if (has_word(both, held_out[i])) return held_out[i];
            continue;
        }
        char color[32];
        snprintf(color, sizeof color, "%.*s", (int)(gap - held_out[i]), held_out[i]);
        if (has_word(both, color) && has_word(both, gap + 1)) return held_out[i];
    }
    return NULL;
}

// ---- tests ------------------------------------------------------------------------------------------------

static void same_bytes_for_any_number_of_threads(void **state) {
    (void)state;
    run("--kind questions --count 150 --seed 5 --threads 1 --out one --text-only 0.1 --describe 0.3");
    run("--kind questions --count 150 --seed 5 --threads 5 --out five --text-only 0.1 --describe 0.3");
    run("--kind questions --count 20 --first 70 --seed 5 --out later --text-only 0.1 --describe 0.3");
    assert_same_file("one/train-questions.json", "five/train-questions.json");
    yyjson_doc *all = read_json("one/train-questions.json"), *some = read_json("later/train-questions.json");
    size_t i, max, n_images = 0;
    yyjson_val *record;
    yyjson_arr_foreach(yyjson_doc_get_root(all), i, max, record) {
        const char *image = get(record, "image");
        if (!image[0]) continue;
        n_images++;
        char a[MAX_PATH], b[MAX_PATH];
        snprintf(a, sizeof a, "one/%s", image);
        snprintf(b, sizeof b, "five/%s", image);
        assert_same_file(a, b);
        snprintf(b, sizeof b, "later/%s", image);
        if (i >= 70 && i < 90)
            assert_same_file(a, b);
        else
            assert_false(exists(b));
        if (i >= 70 && i < 90)
            assert_true(yyjson_equals(record, yyjson_arr_get(yyjson_doc_get_root(some), i - 70)));
    }
    assert_in_range(n_images, 115, 149); // a tenth has none
    yyjson_doc_free(all);
    yyjson_doc_free(some);
}

static void captions_and_questions_share_pictures(void **state) {
    (void)state;
    run("--kind captions --count 30 --seed 5 --out one");
    assert_true(exists("one/train-captions.json") && exists("one/train-questions.json"));
    expect(2, "holds pictures of other settings", "--kind captions --count 30 --seed 6 --out one", 0);
    expect(2, "holds pictures of other settings", "--kind eval --count 3 --out one", 0);
}

static void scenes_hold_as_many_things_as_wanted(void **state) {
    (void)state;
    for (int most = 1; most <= 3; most++) {
        char arguments[160];
        snprintf(
            arguments, sizeof arguments,
            "--kind captions --count 400 --most %d --mix objects=1,emoji=1,signs=1 --no-images --out most%d",
            most, most);
        run(arguments);
        char name[64];
        snprintf(name, sizeof name, "most%d/train-captions.json", most);
        yyjson_doc *doc = read_json(name);
        size_t i, max, n_full = 0;
        yyjson_val *record;
        yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, record) {
            int n = 1;
            for (const char *at = turn(record, 1); (at = strstr(at, ", ")); at += 2)
                n++;
            assert_in_range(n, 1, most);
            n_full += n == most;
        }
        assert_in_range(n_full, 400 / 5, 400);
        yyjson_doc_free(doc);
    }
    expect(2, "--most", "--most 2 --kind eval --out bad", 0);
}

static void splits_and_seeds_share_no_picture(void **state) {
    (void)state;
    static const char *const runs[] = {"--split train --seed 1", "--split val --seed 1",
                                       "--split test --seed 1", "--split train --seed 2"};
    enum { RUNS = 4, EACH = 120 };
    static uint64_t hashes[RUNS * EACH];
    for (int r = 0; r < RUNS; r++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "--kind captions --count %d --size 64 --out split%d %s", EACH,
                 r, runs[r]);
        run(arguments);
        for (int i = 0; i < EACH; i++) {
            char name[MAX_PATH];
            size_t size;
            snprintf(name, sizeof name, "split%d/images/000/%06d.png", r, i);
            char *bytes = read_text(name, &size);
            uint64_t hash = 0xcbf29ce484222325U; // FNV-1a
            for (size_t k = 0; k < size; k++)
                hash = (hash ^ (uint8_t)bytes[k]) * 0x100000001b3U;
            free(bytes);
            for (int k = 0; k < r * EACH + i; k++) {
                if (hashes[k] == hash) fail_msg("%s was drawn before", name);
            }
            hashes[r * EACH + i] = hash;
        }
    }
}

static void training_never_sees_what_is_held_out(void **state) {
    (void)state;
    list_held_out();
    run("--kind questions --count 6000 --seed 3 --no-images --out never --text-only 0.2 --describe 0.3");
    run("--kind captions --count 6000 --seed 3 --no-images --out never");
    static const char *const files[] = {"never/train-questions.json", "never/train-captions.json"};
    for (int f = 0; f < 2; f++) {
        yyjson_doc *doc = read_json(files[f]);
        size_t i, max;
        yyjson_val *record;
        yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, record) {
            const size_t n = yyjson_arr_size(yyjson_obj_get(record, "conversations"));
            assert_true(n >= 2 && n % 2 == 0);
            for (size_t t = 0; t < n; t += 2) {
                const char *found = find_held_out(turn(record, t), turn(record, t + 1), false);
                if (found) fail_msg("training has %s: %s %s", found, turn(record, t), turn(record, t + 1));
            }
        }
        yyjson_doc_free(doc);
    }
    expect(2, "--held-out", "--kind questions --held-out 0.5 --out bad", 0);
}

static void evaluation_marks_what_is_held_out_and_is_balanced(void **state) {
    (void)state;
    list_held_out();
    enum { TASKS = 12, EACH = 240 };
    run("--kind eval --count 240 --held-out 0.4 --seed 9 --no-images --out eval --report --json");
    yyjson_doc *doc = read_json("eval/test-eval.json"), *summary = read_json("out");
    assert_int_equal(yyjson_arr_size(yyjson_doc_get_root(doc)), TASKS * EACH);
    int per_shape[TASKS * EACH] = {0}, n_yes = 0, n_no = 0, n_marked = 0;
    const char *answers[TASKS * EACH] = {NULL};
    size_t i, max;
    yyjson_val *record;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, record) {
        const char *question = get(record, "question"), *answer = get(record, "answer"),
                   *task = get(record, "task");
        const bool marked = yyjson_get_bool(yyjson_obj_get(record, "held_out"));
        const char *found = find_held_out(question, answer, true),
                   *strictly = find_held_out(question, answer, false);
        if (marked && !found) fail_msg("nothing is held out in: %s %s", question, answer);
        if (!marked && strictly) fail_msg("%s is held out in: %s %s", strictly, question, answer);
        n_marked += marked;
        if (strcmp(task, "existence") == 0) *(strcmp(answer, "yes") == 0 ? &n_yes : &n_no) += 1;
        if (strcmp(task, "shapes") != 0) continue;
        int k = 0;
        while (answers[k] && strcmp(answers[k], answer) != 0)
            k++;
        answers[k] = answer;
        per_shape[k]++;
    }
    for (int k = 0; k < 8; k++)
        assert_int_equal(per_shape[k], EACH / 8);
    assert_int_equal(n_yes, n_no);
    assert_in_range(n_marked, TASKS * EACH / 4, TASKS * EACH * 2 / 5);
    // The blind baseline of questions with two answers is about a half, of eight an eighth and what is
    // popular.
    size_t seen = 0;
    yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(summary), "rows"), i, max, record) {
        const char *task = get(record, "task");
        const double blind = yyjson_get_real(yyjson_obj_get(record, "blind"));
        if (strcmp(get(record, "group"), "all") != 0) continue;
        seen++;
        if (strcmp(task, "existence") == 0 || strcmp(task, "relations") == 0)
            assert_true(blind > 0.4 && blind < 0.6);
        if (strcmp(task, "shapes") == 0 || strcmp(task, "colors") == 0) assert_true(blind < 0.3);
        if (strcmp(task, "words") == 0 || strcmp(task, "numbers") == 0) assert_true(blind < 0.1);
    }
    assert_int_equal(seen, TASKS + 1);
    yyjson_doc_free(doc);
    yyjson_doc_free(summary);
}

static bool asks_for_description(const char *question) {
    return strncmp(question, "Describe ", 9) == 0 ||
           strcmp(question, "What can you see in the picture?") == 0;
}

// Asks about scenes of this mix and says how many answers there were.
static size_t expect_answers_from_captions(const char *mix) {
    char arguments[2 * MAX_PATH];
    static const char *const kinds[] = {"captions", "questions --turns 8 --describe 0.3"};
    for (int i = 0; i < 2; i++) {
        snprintf(arguments, sizeof arguments,
                 "--kind %s --split test --held-out 0.3 --count 4000 --seed 11 --no-images --out follow-%s "
                 "--mix %s",
                 kinds[i], mix, mix);
        run(arguments);
    }
    char path[MAX_PATH];
    snprintf(path, sizeof path, "follow-%s/test-captions.json", mix);
    yyjson_doc *captions = read_json(path);
    snprintf(path, sizeof path, "follow-%s/test-questions.json", mix);
    yyjson_doc *questions = read_json(path);
    size_t i, max, n_answers = 0, n_descriptions = 0, n_alone = 0;
    yyjson_val *record;
    yyjson_arr_foreach(yyjson_doc_get_root(questions), i, max, record) {
        yyjson_val *other = yyjson_arr_get(yyjson_doc_get_root(captions), i);
        assert_string_equal(get(record, "image"), get(other, "image"));
        const char *caption = turn(other, 1);
        const size_t n = yyjson_arr_size(yyjson_obj_get(record, "conversations"));
        for (size_t t = 0; t < n; t += 2) {
            char answer[ANSWER_SIZE];
            if (asks_for_description(turn(record, t))) {
                assert_int_equal(t, n - 2); // it would give later answers away
                assert_string_equal(turn(record, t + 1), caption);
                n_descriptions++;
                n_alone += t == 0;
                continue;
            }
            answer_from_caption(caption, turn(record, t), answer);
            if (strcmp(answer, turn(record, t + 1)) != 0)
                fail_msg("%s\n%s: expected %s, found %s", caption, turn(record, t), answer,
                         turn(record, t + 1));
            n_answers++;
        }
    }
    assert_in_range(n_descriptions, 4000 * 0.27, 4000 * 0.33);
    assert_in_range(n_alone, n_descriptions / 9, n_descriptions / 2);
    yyjson_doc_free(captions);
    yyjson_doc_free(questions);
    return n_answers;
}

static void every_answer_follows_from_the_caption(void **state) {
    (void)state;
    assert_true(expect_answers_from_captions("objects=34,emoji=14,signs=24,document=14,chart=14") > 4000 * 3);
    assert_true(expect_answers_from_captions("letters=1") > 4000 * 2);
}

// What a question about existence names, behind its article; NULL: it is another one.
static const char *asked_for(const char *question) {
    static const char *const starts[] = {"Is there ", "Can you see "};
    if (strncmp(question, "<image>\n", 8) == 0) question += 8;
    for (int i = 0; i < 2; i++) {
        if (strncmp(question, starts[i], strlen(starts[i])) == 0)
            return strchr(question + strlen(starts[i]), ' ') + 1;
    }
    return NULL;
}

// Whether all words of the name, up to its question mark, stand in this record's turns before turn t.
static bool named_before(yyjson_val *record, size_t t, const char *name) {
    char words[112], padded[200], word[116];
    snprintf(words, sizeof words, "%.*s", (int)strcspn(name, "?"), name);
    for (char *rest = words, *w; (w = strtok_r(rest, " ", &rest)) != NULL;) {
        bool found = false;
        snprintf(word, sizeof word, " %s ", w);
        for (size_t k = 0; k < t && !found; k++) {
            snprintf(padded, sizeof padded, " %s ", turn(record, k));
            for (char *p = padded; *p; p++)
                *p = *p == '?' || *p == '\n' ? ' ' : *p;
            found = strstr(padded, word) != NULL;
        }
        if (!found) return false;
    }
    return true;
}

// A question about existence names something that the turns before it have not; yes and no are as frequent in
// the first turn as in later ones.
static void no_turn_tells_what_is_there(void **state) {
    (void)state;
    run("--kind questions --count 6000 --turns 6 --mix objects=3,emoji=1 --ask existence=6,relations=0 "
        "--seed 9 --no-images --out tell");
    yyjson_doc *doc = read_json("tell/train-questions.json");
    size_t i, max, n[2][2] = {{0}};
    yyjson_val *record;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, record) {
        const size_t turns = yyjson_arr_size(yyjson_obj_get(record, "conversations"));
        for (size_t t = 0; t < turns; t += 2) {
            if (strstr(turn(record, t), " left of ") || strstr(turn(record, t), " above "))
                fail_msg("%s: expected no question about relations", turn(record, t));
            const char *name = asked_for(turn(record, t));
            if (!name) continue;
            if (named_before(record, t, name)) fail_msg("%s: named before", turn(record, t));
            n[t > 0][strcmp(turn(record, t + 1), "yes") == 0]++;
        }
    }
    for (int later = 0; later < 2; later++) { // within four standard deviations
        const double all = (double)(n[later][0] + n[later][1]), share = (double)n[later][1] / all;
        assert_true(all > 2000);
        if (!(fabs(share - 0.5) < 4 * 0.5 / sqrt(all)))
            fail_msg("%s turns: %.3f are yes", later ? "later" : "first", share);
    }
    yyjson_doc_free(doc);
    run("--kind questions --count 600 --turns 6 --told 1 --mix objects=3,emoji=1 --ask existence=6 --seed 9 "
        "--no-images "
        "--out tell/told");
    doc = read_json("tell/told/train-questions.json");
    size_t n_told = 0;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, record) {
        const size_t turns = yyjson_arr_size(yyjson_obj_get(record, "conversations"));
        for (size_t t = 0; t < turns; t += 2) {
            const char *name = asked_for(turn(record, t));
            n_told += name && named_before(record, t, name);
        }
    }
    assert_true(n_told > 300);
    yyjson_doc_free(doc);
    expect(2, "--told", "--told 0.5 --kind captions --out bad", 0);
    // Where there is nothing to ask of what is wanted, something else is asked.
    run("--kind questions --count 60 --mix objects=1,chart=1 --most 1 --ask "
        "shapes=0,colors=0,sizes=0,positions=0,counting=0,existence=0,charts=0 --no-images --out tell/rest");
    doc = read_json("tell/rest/train-questions.json");
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, record)
        assert_true(yyjson_arr_size(yyjson_obj_get(record, "conversations")) >= 2);
    yyjson_doc_free(doc);
    expect(2, "--ask", "--ask existence=6 --kind captions --out bad", 0);
    expect(2, "--ask", "--ask existence --kind questions --out bad", 0);
    expect(2, "--ask", "--ask existence=,words=2 --kind questions --out bad", 0);
    expect(2, "--ask", "--ask nothing=1 --kind questions --out bad", 0);
}

// How many pixels of a cell of the 3 x 3 grid are nearly of this colour.
static int count_pixels(const pd_image *image, int cell, const int rgb[3]) {
    enum { NEAR = 24 };
    const int side = pd_image_width(image), x0 = cell % 3 * side / 3, y0 = cell / 3 * side / 3;
    int n = 0;
    for (int y = y0; y < y0 + side / 3; y++) {
        for (int x = x0; x < x0 + side / 3; x++) {
            const uint8_t *pixel = pd_image_rgb(image) + ((size_t)y * (size_t)side + (size_t)x) * 3;
            n += abs(pixel[0] - rgb[0]) < NEAR && abs(pixel[1] - rgb[1]) < NEAR &&
                 abs(pixel[2] - rgb[2]) < NEAR;
        }
    }
    return n;
}

static void pictures_show_what_captions_say(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int rgb[3];
    } colors[] = {{"red", {219, 33, 33}},    {"orange", {255, 140, 13}}, {"yellow", {255, 219, 26}},
                  {"green", {33, 153, 56}},  {"blue", {33, 84, 222}},    {"purple", {128, 41, 179}},
                  {"pink", {255, 133, 189}}, {"black", {31, 31, 33}}};
    static const char *const places[] = {"at the top left",    "at the top",    "at the top right",
                                         "at the left",        "in the center", "at the right",
                                         "at the bottom left", "at the bottom", "at the bottom right"};
    run("--kind captions --mix objects=1 --count 60 --seed 4 --out show");
    yyjson_doc *doc = read_json("show/train-captions.json");
    size_t i, max, n_shapes = 0;
    yyjson_val *record;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, record) {
        char path[MAX_PATH], name[MAX_PATH], caption[512];
        snprintf(name, sizeof name, "show/%s", get(record, "image"));
        in_folder(path, name);
        pd_image *image;
        pd_error err;
        if (pd_image_load(path, &image, &err) != PD_OK) fail_msg("%s", err.message);
        assert_int_equal(pd_image_width(image), 224);
        assert_int_equal(pd_image_height(image), 224);
        snprintf(caption, sizeof caption, "%s", turn(record, 1));
        caption[strcspn(caption, ".")] = '\0';
        char *rest = caption;
        for (char *item = rest; item; item = rest) {
            rest = strstr(item, ", ");
            if (rest) *rest = '\0', rest += 2;
            char size[16], color[16], shape[16];
            int cell = 0, c = 0;
            const char *thing = strstr(item, " a ");
            if (!thing || sscanf(thing, " a %15s %15s %15s", size, color, shape) != 3 ||
                (strcmp(size, "large") != 0 && strcmp(size, "small") != 0))
                continue;
            const size_t length = (size_t)(thing - item);
            while (strlen(places[cell]) != length || strncmp(item, places[cell], length) != 0)
                assert_true(++cell < 9);
            while (strcmp(colors[c].name, color) != 0)
                assert_true(++c < 8);
            const int n = count_pixels(image, cell, colors[c].rgb);
            const bool large = strcmp(size, "large") == 0;
            if (large ? n < 650 || n > 3600 : n < 120 || n > 900)
                fail_msg("%s: %d pixels are %s in %s", item, n, color, name);
            n_shapes++;
        }
        pd_image_free(image);
    }
    assert_true(n_shapes > 120);
    yyjson_doc_free(doc);
}

static void demo_pictures_have_names(void **state) {
    (void)state;
    run("--kind demo --out demo");
    yyjson_doc *doc = read_json("demo/demo.json");
    assert_int_equal(yyjson_arr_size(yyjson_doc_get_root(doc)), 8);
    assert_true(exists("demo/receipt-1.png") && exists("demo/shapes-1.png"));
    yyjson_doc_free(doc);
}

// docs/pocket.md's command for the demo's pictures. Their pixels may be another cairo's, their text may not.
static void demo_folder_is_what_its_command_writes(void **state) {
    (void)state;
    char link[MAX_PATH];
    in_folder(link, "kept");
    assert_int_equal(symlink(PD_DEMO_PICTURES, link), 0);
    run("--kind demo --seed 2 --out written");
    assert_same_file("written/scenes.json", "kept/scenes.json");
    assert_same_file("written/demo.json", "kept/demo.json");
    yyjson_doc *doc = read_json("written/demo.json");
    size_t i, max;
    yyjson_val *record;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, record) {
        char name[MAX_PATH];
        snprintf(name, sizeof name, "kept/%s", get(record, "image"));
        if (!exists(name)) fail_msg("%s is missing", name);
    }
    yyjson_doc_free(doc);
}

static void wrong_use_is_said_in_one_line(void **state) {
    (void)state;
    expect(2, "--out", "", 0);
    expect(2, "--kind", "--kind nothing --out bad", 0);
    expect(2, "--count", "--count 0 --out bad", 0);
    expect(2, "--size", "--size 4000 --out bad", 0);
    expect(2, "--nothing", "--nothing", 0);
    expect(2, "--tasks: expected different tasks (shapes, colors, …), found \"colors,nothing\"",
           "--kind eval --tasks colors,nothing --out bad", 0);
    expect(2, "--tasks", "--kind eval --tasks colors,colors --out bad", 0);
    expect(2, "--tasks", "--kind eval --tasks colors, --out bad", 0);
    expect(2, "--tasks", "--kind questions --tasks colors --out bad", 0);
    expect(2, "--mix", "--mix objects=0 --out bad", 0);
    expect(2, "--mix", "--mix circus=1 --out bad", 0);
    expect(2, "--text-only", "--text-only 0.5 --kind captions --out bad", 0);
    expect(2, "--describe", "--describe 0.5 --kind eval --out bad", 0);
    expect(1, "err/below: cannot make the output folder", "--out err/below", 0);
    expect(1, "err: cannot make the output folder", "--out err", 0);
    assert_false(exists("bad"));
    assert_int_equal(finish(start("--help", 0)), 0);
}

// ---- what is left behind ----------------------------------------------------------------------------------

static int n_temporary;

static int see_file(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info;
    (void)type;
    (void)where;
    const size_t length = strlen(path);
    n_temporary += length > 4 && strcmp(path + length - 4, ".tmp") == 0;
    return 0;
}

static void assert_nothing_temporary(void) {
    n_temporary = 0;
    nftw(folder, see_file, 16, FTW_PHYS);
    assert_int_equal(n_temporary, 0);
}

// A file that may not grow stands for a full disk.
static void full_disk_is_an_error_and_leaves_no_json(void **state) {
    (void)state;
    expect(1, "cannot write", "--kind captions --count 50 --out full", 3000);
    assert_false(exists("full/train-captions.json"));
    expect(1, "cannot write", "--kind captions --count 5000 --no-images --out full_json", 100000);
    assert_false(exists("full_json/train-captions.json"));
    assert_nothing_temporary();
}

static void interrupt_stops_at_once_and_leaves_no_json(void **state) {
    (void)state;
    const pid_t child = start("--kind captions --count 1000000 --out stopped", 0);
    const struct timespec moment = {.tv_nsec = 20 * 1000 * 1000};
    for (int i = 0; i < 1500 && !exists("stopped/images/000/000020.png"); i++)
        nanosleep(&moment, NULL);
    assert_true(exists("stopped/images/000/000020.png"));
    kill(child, SIGINT);
    siginfo_t info = {0};
    for (int i = 0; i < 1500 && info.si_pid == 0; i++) {
        nanosleep(&moment, NULL);
        assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    }
    if (info.si_pid == 0) {
        kill(child, SIGKILL);
        finish(child);
        fail_msg("still running 30 s after SIGINT");
    }
    assert_int_equal(finish(child), 130);
    char *err = read_text("err", NULL);
    assert_non_null(strstr(err, "scenes: stopped"));
    free(err);
    assert_false(exists("stopped/train-captions.json"));
    assert_nothing_temporary();
}

// ---- the folder -------------------------------------------------------------------------------------------

static int make_folder(void **state) {
    (void)state;
    return make_test_folder(folder, sizeof folder, "scenes") ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static int remove_folder(void **state) {
    (void)state;
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_for_any_number_of_threads),
        cmocka_unit_test(captions_and_questions_share_pictures),
        cmocka_unit_test(scenes_hold_as_many_things_as_wanted),
        cmocka_unit_test(splits_and_seeds_share_no_picture),
        cmocka_unit_test(training_never_sees_what_is_held_out),
        cmocka_unit_test(evaluation_marks_what_is_held_out_and_is_balanced),
        cmocka_unit_test(every_answer_follows_from_the_caption),
        cmocka_unit_test(no_turn_tells_what_is_there),
        cmocka_unit_test(pictures_show_what_captions_say),
        cmocka_unit_test(demo_pictures_have_names),
        cmocka_unit_test(demo_folder_is_what_its_command_writes),
        cmocka_unit_test(wrong_use_is_said_in_one_line),
        cmocka_unit_test(full_disk_is_an_error_and_leaves_no_json),
        cmocka_unit_test(interrupt_stops_at_once_and_leaves_no_json),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
