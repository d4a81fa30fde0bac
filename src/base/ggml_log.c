#include "base/ggml_log.h"

#include <ggml.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static ggml_log_callback previous;
static void *previous_user;
static _Thread_local char *caught; // NULL: this thread is not catching

static void catch_log(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (!caught) {
        previous(level, text, previous_user);
    } else if (level == GGML_LOG_LEVEL_ERROR && caught[0] == '\0') {
        // "gguf_init_from_reader: tensor …": the function's name says nothing to a user
        const char *colon = strstr(text, ": ");
        snprintf(caught, PD_CAUGHT_LINE, "%s", colon ? colon + 2 : text);
        caught[strcspn(caught, "\n")] = '\0';
    }
}

void pd_ggml_log_catch(char *line) {
    line[0] = '\0';
    pthread_mutex_lock(&mutex);
    ggml_log_get(&previous, &previous_user);
    caught = line;
    ggml_log_set(catch_log, NULL);
}

void pd_ggml_log_release(void) {
    ggml_log_set(previous, previous_user);
    caught = NULL;
    pthread_mutex_unlock(&mutex);
}
