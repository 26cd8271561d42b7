#include "homeserver/base/stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void figures_are_rendered_as_prometheus_text(void **state)
{
    static const char *const lines[] = {
        "# TYPE myelin_http_requests_total counter\nmyelin_http_requests_total 5\n",
        "# TYPE myelin_http_parked gauge\nmyelin_http_parked -2\n",
        "myelin_http_request_seconds_bucket{le=\"0.001\"} 1\n",
        "myelin_http_request_seconds_bucket{le=\"+Inf\"} 2\n",
        "myelin_http_request_seconds_sum 60.000800\nmyelin_http_request_seconds_count 2\n",
        "myelin_errors_total{code=\"FORBIDDEN\"} 0\nmyelin_errors_total{code=\"OTHER\"} 3\n",
    };
    struct stats *stats = stats_new();
    struct buf out;
    (void)state;
    buf_init(&out, 1 << 20);
    stats_family_value(stats, STAT_errors_total, "FORBIDDEN");
    stats_family_value(stats, STAT_errors_total, "OTHER");
    stats_add(stats, STAT_http_requests_total, 2);
    stats_add(stats, STAT_http_requests_total, 3);
    stats_gauge_add(stats, STAT_http_parked, -2);
    stats_observe(stats, STAT_http_request_seconds, 800);
    stats_observe(stats, STAT_http_request_seconds, 60000000);
    stats_family_add(stats, STAT_errors_total, 1, 3);
    stats_family_add(stats, STAT_errors_total, 2, 3); /* not named: nothing */
    stats_render(stats, &out);
    buf_add_byte(&out, '\0');
    for (size_t i = 0; i < COUNT_OF(lines); i++) {
        if (!strstr(out.ptr, lines[i])) {
            fail_msg("missing %s in\n%s", lines[i], out.ptr);
        }
    }
    buf_deinit(&out);
    stats_free(&stats);
    assert_null(stats);
}

static void absent_stats_take_everything(void **state)
{
    (void)state;
    stats_add(NULL, STAT_http_requests_total, 1);
    stats_gauge_set(NULL, STAT_http_parked, 1);
    stats_observe(NULL, STAT_http_request_seconds, 1);
    assert_int_equal(stats_get(NULL, STAT_http_requests_total), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_rendered_as_prometheus_text),
        cmocka_unit_test(absent_stats_take_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
