// pdrop info: what a GGUF file holds.
#include "base/gguf_file.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

static struct {
    pd_strings files;
    bool json, tensors;
} flags;

static const pd_option info_table[] = {
    {.type = PD_OPTION_HEADING, .help = "options"},
    {PD_OPTION_FLAG, 0, "--tensors", NULL, "list every tensor", &flags.tensors, 0, 0, NULL},
    {PD_OPTION_FLAG, 0, "--json", NULL, "one line of JSON: all metadata, and all tensors", &flags.json, 0, 0,
     NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {info_table, NULL};

static const pd_command command = {
    .name = "info",
    .usage = "pdrop info FILE... [--tensors] [--json]",
    .about = "Shows what a GGUF file holds: its metadata, and its tensors by type.",
    .tables = tables,
    .positional = &flags.files,
};

// Element `index` of a metadata value of the given type, as JSON.
static yyjson_mut_val *json_of(yyjson_mut_doc *doc, enum gguf_type type, const void *data, size_t index) {
    switch (type) {
    case GGUF_TYPE_UINT8:
        return yyjson_mut_uint(doc, ((const uint8_t *)data)[index]);
    case GGUF_TYPE_INT8:
        return yyjson_mut_sint(doc, ((const int8_t *)data)[index]);
    case GGUF_TYPE_UINT16:
        return yyjson_mut_uint(doc, ((const uint16_t *)data)[index]);
    case GGUF_TYPE_INT16:
        return yyjson_mut_sint(doc, ((const int16_t *)data)[index]);
    case GGUF_TYPE_UINT32:
        return yyjson_mut_uint(doc, ((const uint32_t *)data)[index]);
    case GGUF_TYPE_INT32:
        return yyjson_mut_sint(doc, ((const int32_t *)data)[index]);
    case GGUF_TYPE_FLOAT32:
        return yyjson_mut_real(doc, (double)((const float *)data)[index]);
    case GGUF_TYPE_BOOL:
        return yyjson_mut_bool(doc, ((const int8_t *)data)[index] != 0);
    case GGUF_TYPE_UINT64:
        return yyjson_mut_uint(doc, ((const uint64_t *)data)[index]);
    case GGUF_TYPE_INT64:
        return yyjson_mut_sint(doc, ((const int64_t *)data)[index]);
    case GGUF_TYPE_FLOAT64:
        return yyjson_mut_real(doc, ((const double *)data)[index]);
    case GGUF_TYPE_STRING:
    case GGUF_TYPE_ARRAY:
    case GGUF_TYPE_COUNT:
        break;
    }
    return yyjson_mut_null(doc);
}

// A metadata value; of an array at most `limit` elements.
static yyjson_mut_val *json_of_key(yyjson_mut_doc *doc, const struct gguf_context *gguf, int64_t key,
                                   size_t limit) {
    const enum gguf_type type = gguf_get_kv_type(gguf, key);
    if (type == GGUF_TYPE_STRING) return yyjson_mut_str(doc, gguf_get_val_str(gguf, key));
    if (type != GGUF_TYPE_ARRAY) return json_of(doc, type, gguf_get_val_data(gguf, key), 0);
    yyjson_mut_val *array = yyjson_mut_arr(doc);
    const enum gguf_type element = gguf_get_arr_type(gguf, key);
    const size_t n = gguf_get_arr_n(gguf, key), shown = n < limit ? n : limit;
    const void *data = element == GGUF_TYPE_STRING || n == 0 ? NULL : gguf_get_arr_data(gguf, key);
    for (size_t i = 0; i < shown; i++) {
        yyjson_mut_arr_append(array, element == GGUF_TYPE_STRING
                                         ? yyjson_mut_str(doc, gguf_get_arr_str(gguf, key, i))
                                         : json_of(doc, element, data, i));
    }
    return array;
}

static pd_status print_json(const pd_gguf *file, pd_error *err) {
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "file", file->path);
    yyjson_mut_obj_add_uint(doc, root, "bytes", file->file.size);
    yyjson_mut_obj_add_uint(doc, root, "version", gguf_get_version(file->gguf));
    yyjson_mut_val *metadata = yyjson_mut_obj_add_obj(doc, root, "metadata");
    for (int64_t i = 0; i < gguf_get_n_kv(file->gguf); i++) {
        yyjson_mut_obj_add(metadata, yyjson_mut_str(doc, gguf_get_key(file->gguf, i)),
                           json_of_key(doc, file->gguf, i, SIZE_MAX));
    }
    yyjson_mut_val *tensors = yyjson_mut_obj_add_arr(doc, root, "tensors");
    for (struct ggml_tensor *t = ggml_get_first_tensor(file->tensors); t;
         t = ggml_get_next_tensor(file->tensors, t)) {
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, tensors);
        yyjson_mut_obj_add_str(doc, o, "name", t->name);
        yyjson_mut_obj_add_str(doc, o, "type", ggml_type_name(t->type));
        yyjson_mut_val *shape = yyjson_mut_obj_add_arr(doc, o, "shape");
        for (int d = 0; d < ggml_n_dims(t); d++)
            yyjson_mut_arr_add_int(doc, shape, t->ne[d]);
        yyjson_mut_obj_add_uint(doc, o, "bytes", ggml_nbytes(t));
    }
    return pd_cli_print_json(doc, "the metadata", err);
}

static void print_value(yyjson_mut_doc *doc, const struct gguf_context *gguf, int64_t key) {
    enum { SHOWN = 6, WIDTH = 96 };
    yyjson_mut_val *value = json_of_key(doc, gguf, key, SHOWN);
    const yyjson_write_flag how = YYJSON_WRITE_ALLOW_INVALID_UNICODE | YYJSON_WRITE_INF_AND_NAN_AS_NULL;
    char *text = yyjson_mut_val_write(value, how, NULL);
    if (text) {
        size_t shown = strlen(text);
        const bool cut = shown > WIDTH;
        if (cut) { // between characters
            shown = WIDTH;
            while (shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80)
                shown--;
            text[shown] = '\0';
        }
        pd_make_printable(text);
        printf("%s%s", text, cut ? "…" : "");
    }
    free(text);
    if (gguf_get_kv_type(gguf, key) == GGUF_TYPE_ARRAY && gguf_get_arr_n(gguf, key) > SHOWN) {
        printf(" … %zu in all", gguf_get_arr_n(gguf, key));
    }
}

static void print_tensors(const pd_gguf *file) {
    struct {
        size_t count, bytes;
        double elements;
    } types[GGML_TYPE_COUNT] = {0}, all = {0};
    char text[24], shape[96];
    for (struct ggml_tensor *t = ggml_get_first_tensor(file->tensors); t;
         t = ggml_get_next_tensor(file->tensors, t)) {
        types[t->type].count++;
        types[t->type].bytes += ggml_nbytes(t);
        types[t->type].elements += (double)ggml_nelements(t);
        all.count++;
        all.bytes += ggml_nbytes(t);
        all.elements += (double)ggml_nelements(t);
        if (!flags.tensors) continue;
        size_t used = 0;
        for (int d = 0; d < ggml_n_dims(t); d++) {
            used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%lld", d ? " x " : "",
                                     (long long)t->ne[d]);
        }
        pd_make_printable(t->name);
        printf("  %-32s %-6s %-24s %s\n", t->name, ggml_type_name(t->type), shape,
               pd_cli_bytes(text, sizeof text, (double)ggml_nbytes(t)));
    }
    printf("\n%zu tensors, %.4g M parameters, %s\n", all.count, all.elements * 1e-6,
           pd_cli_bytes(text, sizeof text, (double)all.bytes));
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        if (types[i].count == 0) continue;
        printf("  %-6s %5zu tensors, %10.4g M parameters, %s\n", ggml_type_name((enum ggml_type)i),
               types[i].count, types[i].elements * 1e-6,
               pd_cli_bytes(text, sizeof text, (double)types[i].bytes));
    }
}

static void print_readable(const pd_gguf *file) {
    char text[24];
    printf("%s: GGUF version %u, %s\n\n", file->path, gguf_get_version(file->gguf),
           pd_cli_bytes(text, sizeof text, (double)file->file.size));
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    for (int64_t i = 0; i < gguf_get_n_kv(file->gguf); i++) {
        char key[160];
        snprintf(key, sizeof key, "%s", gguf_get_key(file->gguf, i));
        pd_make_printable(key);
        printf("  %-44s ", key);
        print_value(doc, file->gguf, i);
        putchar('\n');
    }
    yyjson_mut_doc_free(doc);
    if (flags.tensors) putchar('\n');
    print_tensors(file);
}

int pd_cli_info(int argc, char **argv) {
    int parsed_exit;
    if (!pd_cli_parse(&command, argc, argv, &parsed_exit)) return parsed_exit;
    if (flags.files.count == 0) {
        fprintf(stderr, "pdrop info: expected a GGUF file (see pdrop info --help)\n");
        return PD_EXIT_USAGE;
    }
    for (size_t i = 0; i < flags.files.count; i++) {
        pd_gguf file;
        pd_error err;
        pd_status status = pd_gguf_open(flags.files.values[i], &file, &err);
        if (status == PD_OK && flags.json) {
            status = print_json(&file, &err);
        } else if (status == PD_OK) {
            print_readable(&file);
        }
        pd_gguf_close(&file);
        if (status != PD_OK) return pd_cli_report(status, &err);
    }
    return PD_EXIT_OK;
}
