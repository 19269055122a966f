/*  What a Cortex-M7 needs before main, and what main asks of it, on ARM's MPS2 board (AN500) as qemu-system-arm has it:
    `-M mps2-an500`.  Output goes to its first serial port; the end of main ends the emulator. */
#include <stddef.h>
#include <stdint.h>

int main(void);
void board_reset(void);
void board_fault(void);
void board_put(const char *text, size_t bytes);
unsigned board_instructions(void);
extern uint32_t board_stack[], board_data[], board_data_end[], board_data_from[], board_bss[], board_bss_end[];

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define UART_DATA REGISTER(0x40004000)
#define UART_STATE REGISTER(0x40004004)
#define UART_CONTROL REGISTER(0x40004008)
#define UART_DIVIDER REGISTER(0x40004010)
#define SYSTICK_CONTROL REGISTER(0xe000e010)
#define SYSTICK_RELOAD REGISTER(0xe000e014)
#define SYSTICK_VALUE REGISTER(0xe000e018)
#define CPACR REGISTER(0xe000ed88)

typedef void (*vector)(void);
__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    (vector)(uintptr_t)board_stack, board_reset, board_fault, board_fault, board_fault, board_fault, board_fault,
};

/*  Tells the emulator to end, by the semihosting call SYS_EXIT_EXTENDED. */
__attribute__((noreturn)) static void leave(int status) {
    uint32_t block[2];
    block[0] = 0x20026;
    block[1] = (uint32_t)status;
    {
        register uint32_t call __asm__("r0") = 0x20;
        register uint32_t *arg __asm__("r1") = block;
        __asm__ volatile("bkpt 0xab" : : "r"(call), "r"(arg) : "memory");
    }
    for (;;) {}
}

void board_fault(void) {
    board_put("fault\n", 6);
    leave(2);
}

void board_reset(void) {
    uint32_t *to, *from = board_data_from;
    CPACR |= 0xfu << 20;                        /* the floating-point unit is on */
    __asm__ volatile("dsb\n isb");
    for (to = board_data; to < board_data_end;) *to++ = *from++;
    for (to = board_bss; to < board_bss_end;) *to++ = 0;
    UART_DIVIDER = 16;
    UART_CONTROL = 1;
    SYSTICK_RELOAD = 0xffffff;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 5;
    leave(main());
}

void board_put(const char *text, size_t bytes) {
    for (; bytes > 0; bytes--) {
        while (UART_STATE & 1) {}
        UART_DATA = (uint8_t)*text++;
    }
}

/*  With `-icount shift=0` an instruction takes a nanosecond, and the board's clock of 25 MHz ticks once in 40. */
unsigned board_instructions(void) {
    static unsigned last, sum;
    unsigned now = 0xffffff - SYSTICK_VALUE;
    sum += ((now - last) & 0xffffff) * 40;
    last = now;
    return sum;
}
