#include "baseline.h"

#include "base/file.h"

#include <string.h>
#include <yyjson.h>

// Rows of what is held out, and of what is not, are left out: those of all of a task's questions count.
static pd_status take_row(const char *name, size_t index, yyjson_val *row, pd_baseline *baseline,
                          pd_error *err) {
    if (!yyjson_equals_str(yyjson_obj_get(row, "group"), "all")) return PD_OK;
    if (baseline->n == PD_BASELINE_MOST_TASKS)
        return pd_fail(err, PD_ERR_FORMAT, "%s: rows: expected at most %d of the group \"all\"", name,
                       PD_BASELINE_MOST_TASKS);
    yyjson_val *task = yyjson_obj_get(row, "task"), *blind = yyjson_obj_get(row, "blind");
    const size_t n = baseline->n, length = yyjson_get_len(task);
    if (!yyjson_is_str(task) || length >= sizeof baseline->rows[n].task)
        return pd_fail(err, PD_ERR_FORMAT, "%s: rows[%zu].task: expected a name of at most %zu bytes", name,
                       index, sizeof baseline->rows[n].task - 1);
    const double share = yyjson_is_num(blind) ? yyjson_get_num(blind) : -1;
    if (!(share >= 0 && share <= 1))
        return pd_fail(err, PD_ERR_FORMAT, "%s: rows[%zu].blind: expected a number from 0 to 1", name, index);
    memcpy(baseline->rows[n].task, yyjson_get_str(task), length + 1);
    baseline->rows[n].blind = share;
    baseline->n++;
    return PD_OK;
}

static pd_status take(const char *name, yyjson_val *root, pd_baseline *baseline, pd_error *err) {
    yyjson_val *seed = yyjson_obj_get(root, "seed"), *rows = yyjson_obj_get(root, "rows");
    if (!yyjson_is_uint(seed) || !yyjson_is_arr(rows))
        return pd_fail(err, PD_ERR_FORMAT,
                       "%s: expected \"seed\" and \"rows\", as scenes --report --json has", name);
    baseline->seed = yyjson_get_uint(seed);
    size_t i, n;
    yyjson_val *row;
    yyjson_arr_foreach(rows, i, n, row) PD_TRY(take_row(name, i, row, baseline, err));
    return PD_OK;
}

pd_status pd_baseline_parse(const char *bytes, size_t size, const char *name, pd_baseline *baseline,
                            pd_error *err) {
    *baseline = (pd_baseline){0};
    if (size == 0) return pd_fail(err, PD_ERR_FORMAT, "%s: the file is empty", name);
    // without YYJSON_READ_INSITU the bytes are only read
    char *text = (char *)(uintptr_t)bytes;
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts(text, size, YYJSON_READ_NOFLAG, NULL, &why);
    if (!doc && why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION) return pd_fail_memory(err, size, name);
    if (!doc) {
        size_t line = 1, column = 1, character;
        yyjson_locate_pos(text, size, why.pos, &line, &column, &character);
        return pd_fail(err, PD_ERR_FORMAT, "%s: line %zu, column %zu: broken JSON: %s", name, line, column,
                       why.msg);
    }
    const pd_status status = take(name, yyjson_doc_get_root(doc), baseline, err);
    yyjson_doc_free(doc);
    return status;
}

pd_status pd_baseline_read(const char *path, pd_baseline *baseline, pd_error *err) {
    pd_mapped_file file;
    PD_TRY(pd_mapped_file_open(path, &file, err));
    const pd_status status = pd_baseline_parse((const char *)file.data, file.size, path, baseline, err);
    pd_mapped_file_close(&file);
    return status;
}

double pd_baseline_of(const pd_baseline *baseline, const char *task) {
    for (size_t i = 0; i < baseline->n; i++) {
        if (strcmp(baseline->rows[i].task, task) == 0) return baseline->rows[i].blind;
    }
    return -1;
}
