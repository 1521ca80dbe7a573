/** One line a failed test, and the closing line that tests/run counts. */
import type { Reporter, TestCase, TestResult } from "@playwright/test/reporter";

export default class Lines implements Reporter {
  private passed = 0;
  private failed = 0;

  onTestEnd(test: TestCase, result: TestResult): void {
    if (result.status === "skipped") return;
    if (result.status === test.expectedStatus) {
      this.passed += 1;
      return;
    }
    this.failed += 1;
    console.log(`FAILED: ${test.titlePath().filter(Boolean).join(" › ")} (${result.duration} ms)`);
    for (const error of result.errors) console.log(error.stack ?? error.message ?? "");
  }

  onStdOut(text: string | Buffer): void {
    process.stdout.write(text);
  }

  onError(error: { message?: string; stack?: string }): void {
    this.failed += 1;
    console.log(error.stack ?? error.message ?? "");
  }

  onEnd(): void {
    console.log(`${this.passed} passed, ${this.failed} failed`);
  }

  printsToStdio(): boolean {
    return true;
  }
}
