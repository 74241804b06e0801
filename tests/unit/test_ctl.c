/* The guest's side of the control socket against the tool's side, in one process: the agent's loop runs in a
 * thread, the test plays both the tool and the training thread. Also covers profiler/core/sock. */
#include "injector/ctl.c"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

struct inj_guest inj;

static char sampling[16]; /* what was last asked of injector/sample */

bool inj_sample_ask(const char *word)
{
    snprintf(sampling, sizeof sampling, "%s", word);
    return true;
}

static char dir[] = "/tmp/moeprof-ctl-XXXXXX";
static pthread_t agent;
static _Atomic bool ending;

static void *serve_loop(void *arg)
{
    (void)arg;
    while (!ending)
        inj_ctl_wait(200000000u);
    inj_ctl_close();
    return NULL;
}

static int begin(void **state)
{
    struct mp_err err;

    (void)state;
    ending = false;
    atomic_store(&inj.step, 10);
    snprintf(dir, sizeof dir, "/tmp/moeprof-ctl-XXXXXX");
    if (!mkdtemp(dir) || inj_ctl_init() || inj_ctl_open(dir, &err))
        return -1;
    return pthread_create(&agent, NULL, serve_loop, NULL);
}

static int end(void **state)
{
    struct inj_request left;

    (void)state;
    ending = true;
    inj_ctl_kick();
    pthread_join(agent, NULL);
    while (inj_ctl_take(&left, UINT32_MAX / 2))
        continue;
    inj_ctl_publish(NULL, 0);
    free(rows);
    rows = NULL;
    close(bell);
    return rmdir(dir); /* the socket is gone */
}

static void open_tool(struct mp_sock *s, uint32_t flags)
{
    struct mp_msg hello = {.kind = MP_WIRE_HELLO, .id = 1, .flags = flags, .name = "test"}, m;
    struct mp_err err = {0};

    assert_int_equal(mp_sock_open(s, dir, getpid(), &err), MP_OK);
    assert_int_equal(mp_sock_send(s, &hello), MP_OK);
    assert_int_equal(mp_sock_recv(s, &m, 2000), MP_OK);
    assert_int_equal(m.kind, MP_WIRE_HELLO);
    assert_int_equal(m.step, 10);
    assert_int_equal((int)m.value[0], getpid());
}

static void ask(struct mp_sock *s, int kind, uint32_t id, const char *name, uint32_t step)
{
    struct mp_msg m = {.kind = (uint16_t)kind, .id = id, .step = step, .layer = -1};

    snprintf(m.name, sizeof m.name, "%s", name);
    assert_int_equal(mp_sock_send(s, &m), MP_OK);
}

static void wait_pending(size_t n)
{
    for (int i = 0; i < 2000 && atomic_load(&n_waiting) != n; i++)
        poll(NULL, 0, 1);
    assert_int_equal(atomic_load(&n_waiting), n);
}

static void test_permissions(void **state)
{
    struct stat st;
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "%s/%d.sock", dir, (int)getpid());
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_request_and_answer(void **state)
{
    struct mp_sock s;
    struct inj_request r;
    struct mp_msg done = {.kind = MP_WIRE_DONE, .step = 11, .name = "moeprof"}, m;
    struct mp_msg notice = {.kind = MP_WIRE_SWAPPED, .step = 11};
    int64_t t;

    (void)state;
    open_tool(&s, 0);
    assert_false(inj_ctl_pending());
    t = now_ms();
    ask(&s, MP_WIRE_SWAP, 5, "moeprof", 0);
    wait_pending(1);
    assert_true(now_ms() - t < 20);
    assert_true(inj_ctl_take(&r, 10));
    assert_string_equal(r.msg.name, "moeprof");
    inj_ctl_post(0, &notice);
    inj_ctl_post(r.ticket, &done);
    assert_int_equal(mp_sock_recv(&s, &m, 2000), MP_OK);
    assert_int_equal(m.kind, MP_WIRE_SWAPPED);
    assert_int_equal(m.id, 0);
    assert_int_equal(mp_sock_recv(&s, &m, 2000), MP_OK);
    assert_int_equal(m.kind, MP_WIRE_DONE);
    assert_int_equal(m.id, 5);
    assert_int_equal(m.step, 11);
    assert_int_equal(mp_sock_recv(&s, &m, 10), MP_EBUSY);
    mp_sock_close(&s);
}

static void test_not_before_its_step(void **state)
{
    struct mp_sock s;
    struct inj_request r;

    (void)state;
    open_tool(&s, 0);
    ask(&s, MP_WIRE_SWAP, 2, "later", 20);
    ask(&s, MP_WIRE_CHECK, 3, "now", 0);
    wait_pending(2);
    assert_true(inj_ctl_take(&r, 10));
    assert_string_equal(r.msg.name, "now");
    assert_false(inj_ctl_take(&r, 19));
    assert_true(inj_ctl_take(&r, 20));
    assert_string_equal(r.msg.name, "later");
    mp_sock_close(&s);
}

static void test_status_first_from_the_step_then_at_once(void **state)
{
    struct mp_sock s;
    struct inj_request r;
    struct mp_msg row[3] = {{.kind = MP_WIRE_STATE, .name = "original"},
                            {.kind = MP_WIRE_ARM},
                            {.kind = MP_WIRE_LAYER}},
                  m;

    (void)state;
    open_tool(&s, 0);
    ask(&s, MP_WIRE_STATUS, 2, "", 0);
    wait_pending(1);
    assert_true(inj_ctl_take(&r, 10));
    inj_ctl_publish(row, 3);
    inj_ctl_status(r.ticket);
    ask(&s, MP_WIRE_STATUS, 3, "", 0);
    for (uint32_t id = 2; id <= 3; id++) {
        static const int kind[] = {MP_WIRE_STATE, MP_WIRE_ARM, MP_WIRE_LAYER, MP_WIRE_DONE};

        for (size_t i = 0; i < countof(kind); i++) {
            assert_int_equal(mp_sock_recv(&s, &m, 2000), MP_OK);
            assert_int_equal(m.kind, kind[i]);
            assert_int_equal(m.id, id);
        }
    }
    assert_false(inj_ctl_pending());
    mp_sock_close(&s);
}

static void expect_done(struct mp_sock *s, uint32_t id, int code)
{
    struct mp_msg m;

    assert_int_equal(mp_sock_recv(s, &m, 2000), MP_OK);
    assert_int_equal(m.kind, MP_WIRE_DONE);
    assert_int_equal(m.id, id);
    assert_int_equal(m.code, code);
}

static void test_cancel(void **state)
{
    struct mp_msg done = {.kind = MP_WIRE_DONE, .code = MP_EGONE};
    struct inj_request r;
    struct mp_sock s;

    (void)state;
    open_tool(&s, 0);
    ask(&s, MP_WIRE_SWAP, 2, "moeprof", 0);
    ask(&s, MP_WIRE_CANCEL, 3, "", 2);
    expect_done(&s, 2, MP_EGONE);
    expect_done(&s, 3, MP_OK);
    ask(&s, MP_WIRE_CANCEL, 4, "", 2);
    expect_done(&s, 4, MP_EINVAL);
    assert_false(inj_ctl_pending());
    ask(&s, MP_WIRE_SWAP, 5, "moeprof",
        0); /* taken: the training thread is told, and answers itself */
    wait_pending(1);
    assert_true(inj_ctl_take(&r, 10));
    assert_false(inj_ctl_cancelled());
    ask(&s, MP_WIRE_CANCEL, 6, "", 5);
    expect_done(&s, 6, MP_OK);
    assert_true(inj_ctl_cancelled());
    inj_ctl_post(r.ticket, &done);
    expect_done(&s, 5, MP_EGONE);
    ask(&s, MP_WIRE_CANCEL, 7, "", 5);
    expect_done(&s, 7, MP_EINVAL);
    mp_sock_close(&s);
}

static void test_wrong_use(void **state)
{
    struct mp_sock s;
    struct mp_msg old = {.kind = MP_WIRE_SWAP, .id = 9, .version = 99};
    struct mp_err err;

    (void)state;
    assert_int_equal(mp_sock_open(&s, dir, getpid(), &err), MP_OK);
    ask(&s, MP_WIRE_SWAP, 2, "moeprof", 0);
    expect_done(&s, 2, MP_EINVAL); /* no HELLO */
    mp_sock_close(&s);
    open_tool(&s, 0);
    ask(&s, 31, 3, "", 0);
    expect_done(&s, 3, MP_ENOTSUP);
    assert_int_equal(mp_sock_send(&s, &old), MP_OK);
    expect_done(&s, 9, MP_EVERSION);
    for (uint32_t i = 0; i <= QUEUE; i++)
        ask(&s, MP_WIRE_SWAP, 100 + i, "moeprof", 0);
    expect_done(&s, 100 + QUEUE, MP_EFULL);
    mp_sock_close(&s);
    wait_pending(0); /* requests of a connection that ended are dropped */
    assert_int_equal(mp_sock_open(&s, dir, getpid() + 1, &err), MP_EGONE);
}

static void test_lease_gives_the_job_back(void **state)
{
    struct mp_sock s;
    struct inj_request r;

    (void)state;
    open_tool(&s, MP_WIRE_LEASE);
    mp_sock_close(&s);
    wait_pending(1);
    assert_true(inj_ctl_take(&r, 10));
    assert_true(r.ticket == 0);
    assert_int_equal(r.msg.kind, MP_WIRE_SWAP);
    assert_string_equal(r.msg.name, "original");
    assert_string_equal(sampling, "auto");
}

/* Also where another tool's requests take every place; and leases that are lost one after the other take one. */
static void test_lease_among_many_requests(void **state)
{
    struct mp_sock s, leased;
    struct inj_request r;

    (void)state;
    open_tool(&s, 0);
    for (uint32_t i = 0; i < QUEUE; i++)
        ask(&s, MP_WIRE_SWAP, 100 + i, "moeprof", 0);
    wait_pending(QUEUE);
    for (int i = 0; i < 4; i++) {
        open_tool(&leased, MP_WIRE_LEASE);
        mp_sock_close(&leased);
        wait_pending(QUEUE + 1);
        poll(NULL, 0, 20);
    }
    for (uint32_t i = 0; i < QUEUE; i++)
        assert_true(inj_ctl_take(&r, 10) && r.ticket);
    assert_true(inj_ctl_take(&r, 10) && !r.ticket);
    assert_string_equal(r.msg.name, "original");
    assert_false(inj_ctl_pending());
    mp_sock_close(&s);
}

/* Garbage ends its connection and no other; a tool that never reads is cut off, and the guest goes on. */
static void test_bad_tools(void **state)
{
    struct mp_sock good, bad, deaf;
    struct mp_msg m, notice = {.kind = MP_WIRE_SWAPPED};
    uint8_t junk[64];
    int rc;

    (void)state;
    open_tool(&good, 0);
    open_tool(&bad, 0);
    open_tool(&deaf, 0);
    memset(junk, 0xff, sizeof junk);
    assert_true(send(bad.fd, junk, sizeof junk, MSG_NOSIGNAL) > 0);
    assert_int_equal(mp_sock_recv(&bad, &m, 2000), MP_EGONE);
    memset(notice.text, 'x', sizeof notice.text - 1);
    for (int i = 0; i < 3000; i++) {
        inj_ctl_post(0, &notice);
        assert_int_equal(mp_sock_recv(&good, &m, 2000), MP_OK);
    }
    do
        rc = mp_sock_recv(&deaf, &m, 2000);
    while (rc == MP_OK);
    assert_int_equal(rc, MP_EGONE);
    mp_sock_close(&good);
    mp_sock_close(&bad);
    mp_sock_close(&deaf);
}

static void test_more_tools_than_places(void **state)
{
    struct mp_sock s[CLIENTS + 1];
    struct mp_msg m;
    struct mp_err err;

    (void)state;
    for (size_t i = 0; i < CLIENTS; i++)
        open_tool(&s[i], 0);
    if (mp_sock_open(&s[CLIENTS], dir, getpid(), &err) == MP_OK)
        assert_int_equal(mp_sock_recv(&s[CLIENTS], &m, 2000), MP_EGONE);
    for (size_t i = 0; i <= CLIENTS; i++)
        mp_sock_close(&s[i]);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest test[] = {
        TEST(test_permissions),
        TEST(test_request_and_answer),
        TEST(test_not_before_its_step),
        TEST(test_status_first_from_the_step_then_at_once),
        TEST(test_cancel),
        TEST(test_wrong_use),
        TEST(test_lease_gives_the_job_back),
        TEST(test_lease_among_many_requests),
        TEST(test_bad_tools),
        TEST(test_more_tools_than_places),
    };

    return cmocka_run_group_tests(test, NULL, NULL);
}
