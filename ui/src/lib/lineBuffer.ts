/** New lines in front of those that were read: bounded, each once. */
export class LineBuffer<L extends { logId: string }> {
  private lines: L[] = [];
  private readonly known = new Set<string>();
  /** Lines that were let go because there were too many. */
  dropped = 0;

  constructor(private readonly capacity: number) {}

  /** Takes lines, the oldest first. */
  push(added: L[]): void {
    for (const line of added) {
      if (this.known.has(line.logId)) continue;
      this.known.add(line.logId);
      this.lines.push(line);
    }
    const over = this.lines.length - this.capacity;
    if (over <= 0) return;
    for (const line of this.lines.slice(0, over)) this.known.delete(line.logId);
    this.lines = this.lines.slice(over);
    this.dropped += over;
  }

  get size(): number {
    return this.lines.length;
  }

  /** The newest first. */
  newestFirst(): L[] {
    return this.lines.toReversed();
  }

  clear(): void {
    this.lines = [];
    this.known.clear();
    this.dropped = 0;
  }
}
