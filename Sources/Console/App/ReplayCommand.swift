import ArgumentParser
import CNcurses
import Foundation
import UI

struct ReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Open the console on a recorded session (r in the Elections view, or --record).",
        discussion: "space plays and pauses, left and right scrub, comma and full stop change the speed, { and } jump to elections. Nothing can be changed in a recording."
    )

    @Argument(help: ArgumentHelp("The recording.", valueName: "file"))
    var file: String
    @OptionGroup var console: ConsoleFlags

    func validate() throws {
        guard console.record == nil else { throw ValidationError("--record: a replay is not recorded") }
    }

    func run() throws {
        let signals = SignalInbox.install()
        let recording = try Recording(path: file)
        let mailbox = Mailbox()
        let runner = ReplayRunner(recording, mailbox: mailbox)
        try ConsoleSession(flags: console, signals: signals, mailbox: mailbox, runner: runner, cluster: recording.header.cluster).run()
        if let damage = runner.damage { throw damage }
    }
}
