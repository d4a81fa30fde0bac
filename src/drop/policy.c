// Policies: a schedule, a scorer and positions, from lists or from text.
#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void pd_policy_none(pd_policy *policy) {
    *policy = (pd_policy){.n_drops = 0};
}

void pd_policy_default(pd_policy *policy, int32_t n_layers) {
    pd_policy_none(policy);
    int32_t previous = 0;
    double ratio = 1.0;
    for (int32_t stage = 1; stage < 4; stage++) {
        const int32_t layer = (int32_t)((int64_t)n_layers * stage / 4);
        ratio *= 0.5;
        if (layer <= previous) continue; // a model of fewer than four layers has fewer stages
        policy->layer_list[policy->n_drops] = layer;
        policy->image_token_ratio_list[policy->n_drops] = ratio;
        policy->n_drops++;
        previous = layer;
    }
}

// Everything but the model's depth.
static pd_status check_lists(const pd_policy *policy, pd_error *err) {
    if (policy->n_drops < 0 || policy->n_drops > PD_MAX_DROPS) {
        return pd_fail(err, PD_ERR_ARGUMENT, "policy: expected 0 to %d drops, found %d", PD_MAX_DROPS,
                       policy->n_drops);
    }
    for (int32_t i = 0; i < policy->n_drops; i++) {
        const int32_t layer = policy->layer_list[i];
        const double ratio = policy->image_token_ratio_list[i];
        if (layer < 1) {
            return pd_fail(err, PD_ERR_ARGUMENT, "layer_list: expected layers from 1, found %d", layer);
        }
        if (i > 0 && layer <= policy->layer_list[i - 1]) {
            return pd_fail(err, PD_ERR_ARGUMENT,
                           "layer_list: expected strictly increasing layers, found %d after %d", layer,
                           policy->layer_list[i - 1]);
        }
        if (!(ratio >= 0.0 && ratio <= 1.0)) { // NaN too
            return pd_fail(err, PD_ERR_ARGUMENT,
                           "image_token_ratio_list: expected ratios in [0, 1], found %g", ratio);
        }
        if (i > 0 && ratio > policy->image_token_ratio_list[i - 1]) {
            return pd_fail(err, PD_ERR_ARGUMENT,
                           "image_token_ratio_list: expected non-increasing ratios, found %g after %g", ratio,
                           policy->image_token_ratio_list[i - 1]);
        }
    }
    return PD_OK;
}

pd_status pd_policy_check(const pd_policy *policy, int32_t n_layers, pd_error *err) {
    PD_TRY(check_lists(policy, err));
    if (policy->n_drops > 0 && policy->layer_list[policy->n_drops - 1] >= n_layers) {
        return pd_fail(err, PD_ERR_ARGUMENT, "layer_list: layer %d is beyond the model (expected 1 to %d)",
                       policy->layer_list[policy->n_drops - 1], n_layers - 1);
    }
    if (policy->scorer < PD_SCORER_NEXT_LAYER || policy->scorer > PD_SCORER_RANDOM) {
        return pd_fail(err, PD_ERR_ARGUMENT, "policy: unknown scorer %d", (int)policy->scorer);
    }
    if (policy->positions != PD_POSITIONS_COMPACT && policy->positions != PD_POSITIONS_ORIGINAL) {
        return pd_fail(err, PD_ERR_ARGUMENT, "policy: unknown positions %d", (int)policy->positions);
    }
    return PD_OK;
}

pd_status pd_policy_pyramid(pd_policy *policy, const int32_t *layer_list,
                            const double *image_token_ratio_list, int32_t n_drops, pd_error *err) {
    pd_policy_none(policy);
    if (n_drops < 0 || n_drops > PD_MAX_DROPS) {
        return pd_fail(err, PD_ERR_ARGUMENT, "layer_list: expected 0 to %d entries, found %d", PD_MAX_DROPS,
                       n_drops);
    }
    policy->n_drops = n_drops;
    for (int32_t i = 0; i < n_drops; i++) {
        policy->layer_list[i] = layer_list[i];
        policy->image_token_ratio_list[i] = image_token_ratio_list[i];
    }
    const pd_status status = check_lists(policy, err);
    if (status != PD_OK) pd_policy_none(policy);
    return status;
}

// strtod in the C locale: a host program's locale may want another decimal point.
static double parse_number(const char *text, char **end) {
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    const double value = c ? strtod_l(text, end, c) : strtod(text, end);
    if (c) freelocale(c);
    return value;
}

// A list of numbers such as "[8, 16,24]" or "8,16,24".
static pd_status parse_list(const char *name, const char *text, double values[PD_MAX_DROPS], int32_t *count,
                            pd_error *err) {
    const char *at = text + strspn(text, " \t");
    const bool bracket = *at == '[';
    if (bracket) at++;
    *count = 0;
    at += strspn(at, " \t");
    while (*at != '\0' && *at != ']') {
        char *after;
        const double value = parse_number(at, &after);
        if (after == at || *count == PD_MAX_DROPS) {
            return pd_fail(err, PD_ERR_ARGUMENT,
                           "%s \"%.200s\": expected at most %d numbers such as [8,16,24]", name, text,
                           PD_MAX_DROPS);
        }
        values[(*count)++] = value;
        at = after + strspn(after, " \t");
        if (*at != ',') break;
        at++;
        at += strspn(at, " \t");
        if (*at == '\0' || *at == ']') {
            return pd_fail(err, PD_ERR_ARGUMENT, "%s \"%.200s\": expected a number behind the last comma",
                           name, text);
        }
    }
    const char *end = at + (bracket && *at == ']');
    if ((bracket && *at != ']') || end[strspn(end, " \t")] != '\0') {
        return pd_fail(err, PD_ERR_ARGUMENT, "%s \"%.200s\": expected \",\" or %s at \"%.40s\"", name, text,
                       bracket ? "\"]\"" : "the end", at);
    }
    return PD_OK;
}

pd_status pd_policy_lists(pd_policy *policy, const char *layer_list, const char *image_token_ratio_list,
                          pd_error *err) {
    double layers[PD_MAX_DROPS], ratios[PD_MAX_DROPS];
    int32_t numbers[PD_MAX_DROPS], n_layers, n_ratios;
    pd_policy_none(policy);
    PD_TRY(parse_list("layer_list", layer_list, layers, &n_layers, err));
    PD_TRY(parse_list("image_token_ratio_list", image_token_ratio_list, ratios, &n_ratios, err));
    if (n_layers != n_ratios) {
        return pd_fail(
            err, PD_ERR_ARGUMENT,
            "layer_list has %d entries and image_token_ratio_list %d: expected lists of one length", n_layers,
            n_ratios);
    }
    for (int32_t i = 0; i < n_layers; i++) {
        if (!(layers[i] >= 0.0 && layers[i] <= 1e6) || layers[i] != floor(layers[i])) {
            return pd_fail(err, PD_ERR_ARGUMENT, "layer_list: expected whole numbers, found %g", layers[i]);
        }
        numbers[i] = (int32_t)layers[i];
    }
    return pd_policy_pyramid(policy, numbers, ratios, n_layers, err);
}

// ---- text -------------------------------------------------------------------------------------------------

static pd_status bad_text(const char *text, const char *at, const char *expected, pd_error *err) {
    return pd_fail(err, PD_ERR_ARGUMENT, "policy \"%.200s\": expected %s at \"%.40s\"", text, expected, at);
}

// "8=.5,16=.25" or, where a ratio is implied, "16,24". Stops at ';' or the end.
static pd_status parse_drops(const char *text, const char *at, const double *implied_ratio, pd_policy *policy,
                             const char **end, pd_error *err) {
    for (;;) {
        if (policy->n_drops == PD_MAX_DROPS) return bad_text(text, at, "no more than 31 drops", err);
        char *after;
        errno = 0;
        const long layer = strtol(at, &after, 10);
        if (after == at || !isdigit((unsigned char)*at) || errno != 0 || layer > INT32_MAX) {
            return bad_text(text, at, "a layer number", err);
        }
        at = after;
        double ratio;
        if (*at == '=') {
            at++;
            ratio = parse_number(at, &after);
            if (after == at || isspace((unsigned char)*at)) return bad_text(text, at, "a ratio", err);
            at = after;
        } else if (implied_ratio) {
            ratio = *implied_ratio;
        } else {
            return bad_text(text, at, "\"=\" and a ratio", err);
        }
        policy->layer_list[policy->n_drops] = (int32_t)layer;
        policy->image_token_ratio_list[policy->n_drops] = ratio;
        policy->n_drops++;
        if (*at != ',') break;
        at++;
    }
    *end = at;
    return PD_OK;
}

static pd_status parse_setting(const char *text, const char *at, pd_policy *policy, const char **end,
                               pd_error *err) {
    static const struct {
        const char *text;
        pd_positions positions;
    } settings[] = {{"positions=compact", PD_POSITIONS_COMPACT},
                    {"positions=original", PD_POSITIONS_ORIGINAL}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const size_t length = strlen(settings[i].text);
        if (strncmp(at, settings[i].text, length) == 0) {
            policy->positions = settings[i].positions;
            *end = at + length;
            return PD_OK;
        }
    }
    if (strncmp(at, "seed=", 5) == 0 && isdigit((unsigned char)at[5])) {
        char *after;
        errno = 0;
        policy->seed = strtoull(at + 5, &after, 10);
        if (errno != 0) return bad_text(text, at, "a seed below 2^64", err);
        *end = after;
        return PD_OK;
    }
    return bad_text(text, at, "positions=compact, positions=original or seed=N", err);
}

pd_status pd_policy_parse(pd_policy *policy, const char *text, int32_t n_layers, pd_error *err) {
    static const double half = 0.5, zero = 0.0;
    static const struct {
        const char *name;
        pd_scorer scorer;
        const double *implied_ratio;
        bool needs_drops;
    } methods[] = {
        {"none", PD_SCORER_NEXT_LAYER, NULL, false},      {"pdrop", PD_SCORER_NEXT_LAYER, NULL, false},
        {"fastv", PD_SCORER_PREVIOUS_LAYER, &half, true}, {"vtw", PD_SCORER_UNIFORM, &zero, true},
        {"uniform", PD_SCORER_UNIFORM, NULL, true},       {"random", PD_SCORER_RANDOM, NULL, true},
    };
    pd_policy parsed;
    pd_policy_none(&parsed);
    const size_t name_length = strcspn(text, ":;");
    size_t method = 0;
    const size_t n_methods = sizeof methods / sizeof *methods;
    while (method < n_methods && (strlen(methods[method].name) != name_length ||
                                  strncasecmp(text, methods[method].name, name_length) != 0)) {
        method++;
    }
    if (method == n_methods) return bad_text(text, text, "none, pdrop, fastv, vtw, uniform or random", err);
    parsed.scorer = methods[method].scorer;
    const char *at = text + name_length;
    if (*at == ':') {
        if (method == 0) return bad_text(text, at, "nothing after none", err);
        PD_TRY(parse_drops(text, at + 1, methods[method].implied_ratio, &parsed, &at, err));
    } else if (methods[method].needs_drops) {
        return bad_text(text, at, "\":\" and a list such as 8=.5,16=.25", err);
    } else if (method == 1) {
        pd_policy_default(&parsed, n_layers);
    }
    while (*at == ';')
        PD_TRY(parse_setting(text, at + 1, &parsed, &at, err));
    if (*at != '\0') return bad_text(text, at, "\";\" or the end", err);
    PD_TRY(pd_policy_check(&parsed, n_layers, err));
    *policy = parsed;
    return PD_OK;
}
